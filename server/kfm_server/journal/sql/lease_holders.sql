select partition, epoch, owner, address, clean from kfm.leases
where owner <> '' and expires_at > clock_timestamp()
