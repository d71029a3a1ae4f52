-- An event outside a turn has an id of its own in its bytes. Ours is not far behind the head.
select exists (
    select from (
        select envelope from kfm.journal
        where partition = $1 and epoch = $2 and turn_id = '' order by "offset" desc limit 10000
    ) late
    where envelope = $3
)
