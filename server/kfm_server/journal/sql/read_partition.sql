select partition, "offset", epoch, turn_id, sequence, topic, envelope from kfm.journal
where partition = $1 and "offset" > $2 order by "offset" limit $3
