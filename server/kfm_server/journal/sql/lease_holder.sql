select partition, epoch, owner, address, clean from kfm.leases
where partition = $1 and owner <> '' and expires_at > clock_timestamp()
