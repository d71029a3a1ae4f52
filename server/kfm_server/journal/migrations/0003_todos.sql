-- The todo lists of the tool todo_store.
create table if not exists todos (
    todo_id    uuid        primary key,
    tenant_id  text        not null,
    principal  text        not null,
    call_key   text        not null,
    title      text        not null,
    notes      text        not null default '',
    done_at    timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    unique (tenant_id, principal, call_key)
);

create index if not exists todos_of_principal on todos (tenant_id, principal, created_at, todo_id);
create index if not exists todos_by_title on todos (tenant_id, principal, lower(title));
