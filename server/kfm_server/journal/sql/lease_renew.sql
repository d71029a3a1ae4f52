with mine as (
    select partition from kfm.leases where owner = $1 order by partition for update
)
update kfm.leases l set expires_at = clock_timestamp() + $2::interval
from mine where l.partition = mine.partition
returning l.partition, l.epoch, l.owner, l.address, l.clean
