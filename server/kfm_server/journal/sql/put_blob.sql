insert into kfm.blobs (digest, body) values ($1, $2) on conflict do nothing
