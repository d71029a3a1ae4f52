-- What the workers of pools have said of their tools: known to every process, also while no worker is there.
create table kfm.pool_tools (
    name text primary key,
    pool text not null,
    definition bytea not null,
    version bigint not null
);
create sequence kfm.pool_tools_version;
