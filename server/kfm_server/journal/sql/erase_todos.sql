delete from kfm_tools.todos where tenant_id = $1 and principal = $2 returning todo_id
