-- The heads of partitions as they are now: after an append in the same statement, while their locks are held, the
-- offsets of what was appended. A function, so that it has a fresh snapshot.
create function kfm.heads_now(of int[]) returns table (partition int, head bigint)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    select p, (
        select j."offset" from kfm.journal j where j.partition = p order by j."offset" desc limit 1
    ) from (select distinct unnest(of)) as d (p);
end
$$;
