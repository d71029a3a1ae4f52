-- Leases first, then partitions, each in order; appends lock partitions only.
with free as (
    select partition, owner = '' as released from kfm.leases
    where $3 or owner = '' or expires_at <= clock_timestamp()
    order by partition limit $4 for update
),
numbered as (
    select free.partition, free.released, p.epoch + 1 as epoch
    from free join (
        select partition, epoch from kfm.partitions
        where partition in (select partition from free) order by partition for no key update
    ) p using (partition)
),
alone as (
    delete from kfm.runtimes where $3 and owner <> $1
),
raised as (
    update kfm.partitions p set epoch = n.epoch from numbered n where p.partition = n.partition
)
update kfm.leases l set
    owner = $1, address = $2, epoch = n.epoch, clean = $3 or n.released,
    expires_at = clock_timestamp() + $5::interval
from numbered n where l.partition = n.partition
returning l.partition, l.epoch, l.owner, l.address, l.clean
