select name, pool, definition, version from kfm.pool_tools where version <> all($1::bigint[]) order by version
