insert into kfm.pool_tools as known (name, pool, definition, version)
select name, $1, definition, nextval('kfm.pool_tools_version')
from unnest($2::text[], $3::bytea[]) as told(name, definition) order by name
on conflict (name) do update set pool = excluded.pool, definition = excluded.definition, version = excluded.version
where (known.pool, known.definition) is distinct from (excluded.pool, excluded.definition)
returning name
