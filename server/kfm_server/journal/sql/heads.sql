select p.partition, h."offset" from kfm.partitions p
cross join lateral (
    select "offset" from kfm.journal j where j.partition = p.partition order by "offset" desc limit 1
) h
