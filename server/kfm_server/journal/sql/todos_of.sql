select todo_id, title, notes, done_at, created_at, updated_at from kfm_tools.todos
where tenant_id = $1 and principal = $2 order by created_at, todo_id
