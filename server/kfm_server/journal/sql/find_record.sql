select epoch from kfm.journal where turn_id = $1 and sequence = $2 and turn_id <> ''
