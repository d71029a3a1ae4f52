select partition, "offset", epoch, turn_id, sequence, topic, envelope from kfm.journal
where turn_id = any ($1::text[]) and turn_id <> '' order by partition, "offset"
