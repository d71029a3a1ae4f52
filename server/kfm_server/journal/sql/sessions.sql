-- A session stands at its latest turn: the walk goes down the turns and stops when the page is full.
select s.session_id, a.turns, a.created_us, a.updated_us, s.turn_id
from (
    select t.session_id, t.turn_id, t.tenant_id from kfm.turns t
    where t.tenant_id = $1 and ($2 = '' or t.turn_id < $2 collate "C")
        and t.turn_id = (select max(l.turn_id) from kfm.turns l where l.session_id = t.session_id)
    order by t.turn_id desc limit $3
) s
cross join lateral (
    select count(*) as turns, min(t.submitted_us) as created_us, max(t.submitted_us) as updated_us
    from kfm.turns t where t.session_id = s.session_id and t.tenant_id = s.tenant_id
) a
order by s.turn_id desc
