-- Consumers of the bus: dead letters, holds that a person released, and the audit log.

-- session_id holds the key that is held: a session, or what stands for one event outside any.
alter table kfm.holds add column released boolean not null default false;

create index holds_released on kfm.holds (consumer_group, partition) where released;

create table kfm.dead_letters (
    id text collate "C" primary key,
    consumer_group text collate "C" not null,
    partition int not null,
    "offset" bigint not null,
    topic text collate "C" not null,
    tenant_id text collate "C" not null,
    session_id text collate "C" not null,
    held_key text collate "C" not null,
    created_us bigint not null,
    reason text collate "C" not null,
    envelope bytea not null,
    is_open boolean not null default true
);

create index dead_letters_open on kfm.dead_letters (tenant_id, created_us, id) where is_open;

-- Derived by the group `audit`; a repeat has the same event id.
create table kfm.audit (
    event_id text collate "C" primary key,
    tenant_id text collate "C" not null,
    at_us bigint not null,
    envelope bytea not null
);

create index audit_tenant on kfm.audit (tenant_id, at_us, event_id);
