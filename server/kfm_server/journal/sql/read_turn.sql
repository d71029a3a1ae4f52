select partition, "offset", epoch, turn_id, sequence, topic, envelope from kfm.journal
where turn_id = $1 and turn_id <> '' and sequence > $2 order by sequence limit $3
