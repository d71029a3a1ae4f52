select turn_id, session_id, tenant_id, partition, phase, wake_at_us, submitted_us from kfm.turns
where partition = $1 and phase <> 'finished' order by submitted_us, turn_id
