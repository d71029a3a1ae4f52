select id, partition, tenant_id, principal, rpc, key, digest, outcome, envelope from kfm.inbox
where partition = any ($1::int[]) order by id limit 1000
