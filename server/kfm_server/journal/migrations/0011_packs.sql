-- Personality packs by the digest of their files: a turn keeps the one that it began with, in whatever process it goes on.
create table kfm.packs (
    digest text primary key,
    name text not null,
    version text not null,
    archive bytea not null,
    stored_at timestamptz not null default now()
);
