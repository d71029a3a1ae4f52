select tenant_id, principal, rpc, key, digest, outcome from kfm.requests
where tenant_id = $1 and principal = $2 and rpc = $3 and key = $4
