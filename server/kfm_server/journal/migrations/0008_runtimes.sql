-- The processes that share the partitions. One that holds none is known by nothing else.
create table kfm.runtimes (
    owner text primary key,
    expires_at timestamptz not null
) with (fillfactor = 50);
