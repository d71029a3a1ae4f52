select turn_id, session_id, tenant_id, partition, phase, wake_at_us, submitted_us from kfm.turns
where ($1 = '' or tenant_id = $1) and ($2 = '' or session_id = $2) and ($3 = '' or phase = $3)
    and ($4 = '' or turn_id < $4 collate "C")
order by turn_id desc limit $5
