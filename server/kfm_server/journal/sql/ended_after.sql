select
    f.partition, f."offset", f.epoch, f.turn_id, f.sequence, f.topic, f.envelope,
    l.partition, l."offset", l.epoch, l.turn_id, l.sequence, l.topic, l.envelope
from (
    select turn_id, partition, ended from kfm.turns
    where tenant_id = $1 and session_id = $2 and ended > $3
    order by ended limit $4
) t
join kfm.journal f on f.turn_id = t.turn_id and f.turn_id <> '' and f.sequence = 1
join kfm.journal l on l.partition = t.partition and l."offset" = t.ended
order by t.ended
