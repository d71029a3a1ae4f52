-- The todo lists of the tool todo_store. Tools keep their tables apart from those of the engine.
create schema kfm_tools;

create table kfm_tools.todos (
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

create index todos_of_principal on kfm_tools.todos (tenant_id, principal, created_at, todo_id);
create index todos_by_title on kfm_tools.todos (tenant_id, principal, lower(title));
