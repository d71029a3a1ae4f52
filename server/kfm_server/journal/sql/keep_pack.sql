insert into kfm.packs (digest, name, version, archive) values ($1, $2, $3, $4) on conflict do nothing returning digest
