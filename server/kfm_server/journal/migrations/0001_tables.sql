-- The durable core. Ids compare by byte, whatever the database's locale.

create table kfm.settings (
    name text primary key,
    value text not null
);

-- Locked by every append, updated only by a takeover. The head is the journal's last offset.
create table kfm.partitions (
    partition int primary key,
    epoch bigint not null
);

-- Apart from partitions, so that renewals and appends never wait for each other.
create table kfm.leases (
    partition int primary key,
    owner text not null default '',
    epoch bigint not null default 0,
    address text not null default '',
    clean boolean not null default true,
    expires_at timestamptz not null default '-infinity'
) with (fillfactor = 50);

create table kfm.inbox (
    partition int not null,
    id bigint generated always as identity,
    tenant_id text,
    principal text,
    rpc text,
    key text,
    digest bytea,
    outcome bytea,
    envelope bytea not null,
    posted_at timestamptz not null default clock_timestamp(),
    primary key (partition, id)
);

create table kfm.requests (
    tenant_id text collate "C" not null,
    principal text collate "C" not null,
    rpc text collate "C" not null,
    key text collate "C" not null,
    digest bytea not null,
    outcome bytea not null,
    claimed_at timestamptz not null default clock_timestamp(),
    primary key (tenant_id, principal, rpc, key)
);

create table kfm.journal (
    partition int not null,
    "offset" bigint not null,
    epoch bigint not null,
    turn_id text collate "C" not null,
    sequence bigint not null,
    topic text collate "C" not null,
    envelope bytea not null,
    primary key (partition, "offset")
);

-- Events outside a turn have no turn id and sequence 0.
create unique index journal_turn on kfm.journal (turn_id, sequence) where turn_id <> '';

-- A projection, for lists and recovery; written when phase or wake_at changes, at no other event.
create table kfm.turns (
    turn_id text collate "C" primary key,
    session_id text collate "C" not null,
    tenant_id text collate "C" not null,
    partition int not null,
    phase text collate "C" not null check (phase in ('queued', 'running', 'waiting', 'finished')),
    wake_at_us bigint,
    submitted_us bigint not null
) with (fillfactor = 80);

create index turns_open on kfm.turns (partition, submitted_us, turn_id) where phase <> 'finished';

create index turns_tenant on kfm.turns (tenant_id, turn_id);

create index turns_session on kfm.turns (session_id, turn_id);

create table kfm.blobs (
    digest text collate "C" primary key,
    body bytea not null
);

-- How far each group of consumers has read; committed with the epoch, so that a late one is refused.
create table kfm.consumer_offsets (
    consumer_group text collate "C" not null,
    topic text collate "C" not null,
    partition int not null,
    "offset" bigint not null,
    epoch bigint not null,
    primary key (consumer_group, topic, partition)
);

-- Sessions that a group does not advance, until a person replays or drops what stopped it.
create table kfm.holds (
    consumer_group text collate "C" not null,
    session_id text collate "C" not null,
    partition int not null,
    "offset" bigint not null,
    reason text not null,
    primary key (consumer_group, session_id)
);
