insert into kfm.inbox (partition, tenant_id, principal, rpc, key, digest, outcome, envelope)
values ($1, $2, $3, $4, $5, $6, $7, $8)
returning id
