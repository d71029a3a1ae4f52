-- How far each partition reached when: what was there at a mark is at least as old as the mark.
create table kfm.marks (
    partition int not null,
    at timestamptz not null default clock_timestamp(),
    "offset" bigint not null,
    primary key (partition, at)
);
