with mine as (
    select partition from kfm.leases
    where owner = $1 and ($2::int[] is null or partition = any ($2)) order by partition for update
)
update kfm.leases l set owner = '', address = '', expires_at = '-infinity'
from mine where l.partition = mine.partition
