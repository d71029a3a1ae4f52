-- Rows of the dead go a minute after their time; who is at the same meets no lock.
with here as (
    insert into kfm.runtimes as r (owner, expires_at)
    select $1, clock_timestamp() + $3::interval where $2
    on conflict (owner) do update set expires_at = excluded.expires_at
),
gone as (
    select owner from kfm.runtimes
    where owner = $1 and not $2 or owner <> $1 and expires_at < clock_timestamp() - interval '1 minute'
    for update skip locked
),
deleted as (
    delete from kfm.runtimes r using gone where r.owner = gone.owner
),
alive as (
    select r.owner, count(l.partition)::int as held, greatest(r.expires_at, max(l.expires_at)) as until
    from (
        select owner, expires_at from kfm.runtimes where owner <> $1
        union all select $1, clock_timestamp() + $3::interval where $2
    ) r
    left join kfm.leases l on l.owner = r.owner and l.expires_at > clock_timestamp()
    group by r.owner, r.expires_at
)
select owner, held, extract(epoch from until - clock_timestamp())::float8 as seconds
from alive where until > clock_timestamp()
