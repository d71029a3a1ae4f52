select session_id, count(*), min(submitted_us), max(submitted_us), max(turn_id) from kfm.turns
where tenant_id = $1 and session_id = $2 group by session_id
