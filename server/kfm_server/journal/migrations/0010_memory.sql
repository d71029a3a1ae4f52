-- Knowledge, facts and preferences. Rows of a tenant are seen only where `kfm.tenant` names it: the policies hold for
-- the owner of the tables too, and who would bypass them, a superuser, works as the role kfm_memory.
create schema kfm_memory;

-- Roles are of the whole cluster: another database may have made it. Who may not make one is bound by `force` below.
do $$
begin
    if not exists (select from pg_roles where rolname = 'kfm_memory') then
        create role kfm_memory nologin nosuperuser nobypassrls;
    end if;
    execute format('grant kfm_memory to %I', current_user);
exception
    when duplicate_object or unique_violation or insufficient_privilege then null;
end
$$;

create table kfm_memory.collections (
    tenant_id text collate "C" not null check (tenant_id <> ''),
    collection text collate "C" not null,
    owner text collate "C" not null default '',
    created_at timestamptz not null default now(),
    primary key (tenant_id, collection)
);

create table kfm_memory.documents (
    tenant_id text collate "C" not null check (tenant_id <> ''),
    collection text collate "C" not null,
    source text collate "C" not null,
    revision text collate "C" not null,
    digest text collate "C" not null,
    title text not null,
    media_type text collate "C" not null,
    metadata jsonb not null default '{}',
    bytes bigint not null,
    chunks int not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (tenant_id, collection, source),
    foreign key (tenant_id, collection) references kfm_memory.collections on delete cascade
);

-- A chunk's id is its document's revision and its place: a changed document has other chunks.
create table kfm_memory.chunks (
    tenant_id text collate "C" not null check (tenant_id <> ''),
    collection text collate "C" not null,
    chunk_id text collate "C" not null,
    source text collate "C" not null,
    ordinal int not null,
    heading text not null default '',
    text text not null,
    metadata jsonb not null default '{}',
    words tsvector not null,
    primary key (tenant_id, collection, chunk_id),
    foreign key (tenant_id, collection, source) references kfm_memory.documents on delete cascade
);

create index chunks_of_document on kfm_memory.chunks (tenant_id, collection, source, ordinal);

create index chunks_words on kfm_memory.chunks using gin (words);

-- Revisions whose vectors are to go: not yet of a document, or no longer. What a crash leaves is swept from here.
create table kfm_memory.loose_revisions (
    tenant_id text collate "C" not null check (tenant_id <> ''),
    collection text collate "C" not null,
    revision text collate "C" not null,
    chunks int not null,
    at timestamptz not null default now(),
    primary key (tenant_id, collection, revision)
);

create table kfm_memory.facts (
    fact_id text collate "C" primary key,
    tenant_id text collate "C" not null check (tenant_id <> ''),
    user_id text collate "C" not null,
    kind text collate "C" not null check (kind in ('fact', 'preference')),
    key text collate "C" not null,
    value text not null,
    source text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (tenant_id, user_id, kind, key)
);

-- Which embedder the vectors of a collection are of; the vectors stand in a table for each embedder, made when it is first used.
create table kfm_memory.vector_collections (
    tenant_id text collate "C" not null check (tenant_id <> ''),
    collection text collate "C" not null,
    embedder_id text collate "C" not null,
    dims int not null,
    primary key (tenant_id, collection)
);

do $$
declare
    name text;
    has_role boolean := exists (select from pg_roles where rolname = 'kfm_memory');
begin
    foreach name in array array['collections', 'documents', 'chunks', 'facts', 'loose_revisions', 'vector_collections'] loop
        execute format('alter table kfm_memory.%I enable row level security', name);
        execute format('alter table kfm_memory.%I force row level security', name);
        execute format('create policy of_tenant on kfm_memory.%I using (tenant_id = current_setting(''kfm.tenant'', true))', name);
        if has_role then
            execute format('grant select, insert, update, delete on kfm_memory.%I to kfm_memory', name);
        end if;
    end loop;
    if has_role then
        grant usage on schema kfm_memory to kfm_memory;
    end if;
end
$$;
