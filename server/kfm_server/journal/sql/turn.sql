select turn_id, session_id, tenant_id, partition, phase, wake_at_us, submitted_us from kfm.turns
where turn_id = $1
