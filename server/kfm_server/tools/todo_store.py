"""The todo list: one per tenant and principal, kept in the engine's database. TRANSACTIONAL."""

import datetime
import uuid
from typing import Any, Final

import uuid_utils
from kfm.type.v1 import type_pb2 as types

from kfm_server.ports.tools import ToolCall, ToolError, ToolSpec

MAX_TODOS: Final = 10_000
"""Most todos of one principal."""
MAX_TITLE: Final = 500
MAX_NOTES: Final = 4000
MAX_LISTED: Final = 500
_MOST_NAMED: Final = 5

_COLUMNS = "todo_id, title, notes, done_at, created_at, updated_at"
_MINE = "tenant_id = $1 and principal = $2"

_COUNT = f"select count(*) from kfm_tools.todos where {_MINE}"
_FIND_KEY = f"select {_COLUMNS} from kfm_tools.todos where {_MINE} and call_key = $3"
_INSERT = f"""
    insert into kfm_tools.todos (todo_id, tenant_id, principal, call_key, title, notes)
    values ($3, $1, $2, $4, $5, $6)
    on conflict (tenant_id, principal, call_key) do nothing
    returning {_COLUMNS}"""
_LIST = f"""
    select {_COLUMNS}, count(*) over () as total from kfm_tools.todos
    where {_MINE} and ($3 = 'all' or (done_at is not null) = ($3 = 'done'))
    order by created_at desc, todo_id desc limit $4"""
_FIND_ID = f"select {_COLUMNS} from kfm_tools.todos where {_MINE} and todo_id = $3 for update"
_FIND_TITLE = f"""
    select {_COLUMNS} from kfm_tools.todos where {_MINE} and lower(title) = lower($3)
    order by done_at is not null, created_at, todo_id limit {_MOST_NAMED + 1} for update"""
_UPDATE = f"""
    update kfm_tools.todos set title = $4, notes = $5, updated_at = now(),
        done_at = case when $6 then coalesce(done_at, now()) end
    where {_MINE} and todo_id = $3
    returning {_COLUMNS}"""
_DELETE = f"delete from kfm_tools.todos where {_MINE} and todo_id = $3"

_ALLOWED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "add": (("title",), ("title", "notes")),
    "list": ((), ("filter", "limit")),
    "complete": ((), ("id", "title")),
    "delete": ((), ("id", "title")),
    "update": ((), ("id", "title", "new_title", "notes", "done")),
}
_PRINTABLE = "^[^\\u0000-\\u0008\\u000b-\\u001f\\u007f]*$"


def _branch(action: str) -> dict[str, Any]:
    required, allowed = _ALLOWED[action]
    then: dict[str, Any] = {"propertyNames": {"enum": ["action", *allowed]}}
    if required:
        then["required"] = list(required)
    if "id" in allowed:
        then["oneOf"] = [{"required": ["id"]}, {"required": ["title"]}]
    if action == "update":
        then["anyOf"] = [{"required": [name]} for name in ("new_title", "notes", "done")]
    return {"if": {"properties": {"action": {"const": action}}, "required": ["action"]}, "then": then}


_TITLE = {"type": "string", "minLength": 1, "maxLength": MAX_TITLE, "pattern": "\\S"}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "action": {"enum": list(_ALLOWED)},
        "id": {"type": "string", "pattern": "^[0-9a-fA-F-]{32,36}$", "description": "Id of a todo."},
        "title": {
            **_TITLE,
            "allOf": [{"pattern": _PRINTABLE}],
            "description": "What to do; for complete, delete and update the title of the todo meant, if not its id.",
        },
        "new_title": {**_TITLE, "allOf": [{"pattern": _PRINTABLE}]},
        "notes": {"type": "string", "maxLength": MAX_NOTES, "pattern": _PRINTABLE},
        "done": {"type": "boolean"},
        "filter": {"enum": ["all", "open", "done"], "description": "Which todos to list; all if not given."},
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED},
    },
    "required": ["action"],
    "additionalProperties": False,
    "allOf": [_branch(action) for action in _ALLOWED],
}


class TodoStore:
    """The tool `todo_store`: add, list, complete, delete and update. Adding is idempotent by the call's key."""

    spec = ToolSpec(
        name="todo_store",
        description="Keeps the caller's todo list: add, list, complete, delete and update todos.",
        input_schema=SCHEMA,
        effect=types.EFFECT_CONTRACT_TRANSACTIONAL,
    )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Perform `action` on the engine's transaction.

        Answers `todo`, or `todos` (the newest `limit`, oldest first) with `total`, and `text`. Raises ToolError: no such todo, several of that title,
        the list is full, the database is away (retryable).
        """
        if call.connection is None:
            raise ToolError("The todo list needs a database, and this server runs without one.")
        import asyncpg  # a process that only knows the tool, as a worker does, needs no driver

        action: str = arguments["action"]
        try:
            if action == "add":
                return await _add(call, arguments)
            if action == "list":
                return await _list(call, arguments)
            row = await _find(call, arguments)
            if action == "delete":
                await call.connection.execute(_DELETE, call.tenant_id, call.principal, row["todo_id"])
                return {"todo": _todo(row), "text": f'Deleted "{row["title"]}" from your todos.'}
            if action == "complete":
                return await _complete(call, row)
            return await _update(call, row, arguments)
        except asyncpg.DataError as error:  # also an InterfaceError: it must come first
            raise ToolError("The database refuses a value of this todo.") from error
        except (
            asyncpg.PostgresConnectionError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,  # a connection that is cut as a statement begins
            OSError,
        ) as error:
            raise ToolError("The database is away.", retryable=True) from error


async def _add(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    mine = (call.tenant_id, call.principal)
    row = await call.connection.fetchrow(_FIND_KEY, *mine, call.key)
    if row is None:
        if await call.connection.fetchval(_COUNT, *mine) >= MAX_TODOS:
            raise ToolError(f"The todo list is full: it holds {MAX_TODOS}.")
        fresh = uuid.UUID(bytes=uuid_utils.uuid7().bytes)
        title = arguments["title"].strip()
        row = await call.connection.fetchrow(
            _INSERT, *mine, fresh, call.key, title, arguments.get("notes", "")
        )
        row = row or await call.connection.fetchrow(_FIND_KEY, *mine, call.key)
    return {"todo": _todo(row), "text": f'Added "{row["title"]}" to your todos.'}


async def _list(call: ToolCall, arguments: dict[str, Any]) -> dict[str, Any]:
    which: str = arguments.get("filter", "all")
    rows = await call.connection.fetch(
        _LIST, call.tenant_id, call.principal, which, arguments.get("limit", 100)
    )
    rows = rows[::-1]
    total: int = rows[0]["total"] if rows else 0
    left_out = total - len(rows)
    kind = "" if which == "all" else f"{which} "
    if not rows:
        return {"todos": [], "total": 0, "text": f"You have no {kind}todos."}
    shown = f"; the newest {len(rows)} are shown, {left_out} older left out" if left_out else ""
    lines = [f"You have {total} {kind}todo{'' if total == 1 else 's'}{shown}:"]
    lines += [
        f"{number}. [{'x' if row['done_at'] else ' '}] {row['title']}"
        for number, row in enumerate(rows, start=left_out + 1)
    ]
    return {"todos": [_todo(row) for row in rows], "total": total, "text": "\n".join(lines)}


async def _complete(call: ToolCall, row: Any) -> dict[str, Any]:
    if row["done_at"] is not None:
        return {"todo": _todo(row), "text": f'"{row["title"]}" was done already.'}
    row = await _write(call, row, row["title"], row["notes"], True)
    return {"todo": _todo(row), "text": f'Completed "{row["title"]}".'}


async def _update(call: ToolCall, row: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    was_done = row["done_at"] is not None
    done: bool = arguments.get("done", was_done)
    title = arguments.get("new_title", row["title"]).strip()
    updated = await _write(call, row, title, arguments.get("notes", row["notes"]), done)
    changes: list[str] = []
    if row["title"] != updated["title"]:
        changes.append(f'it is now "{updated["title"]}"')
    if done != was_done:
        changes.append("it is done" if done else "it is open again")
    if row["notes"] != updated["notes"]:
        changes.append("its notes changed")
    return {
        "todo": _todo(updated),
        "text": f'Updated "{row["title"]}": {", ".join(changes) or "nothing changed"}.',
    }


async def _write(call: ToolCall, row: Any, title: str, notes: str, done: bool) -> Any:
    return await call.connection.fetchrow(
        _UPDATE, call.tenant_id, call.principal, row["todo_id"], title, notes, done
    )


async def _find(call: ToolCall, arguments: dict[str, Any]) -> Any:
    mine = (call.tenant_id, call.principal)
    if "id" in arguments:
        try:
            wanted = uuid.UUID(arguments["id"])
        except ValueError:
            raise ToolError(f"{arguments['id']!r} is not the id of a todo.") from None
        row = await call.connection.fetchrow(_FIND_ID, *mine, wanted)
        if row is None:
            raise ToolError(f"You have no todo with the id {wanted}.")
        return row
    title: str = arguments["title"].strip()
    rows = await call.connection.fetch(_FIND_TITLE, *mine, title)
    if arguments["action"] == "complete":
        rows = [row for row in rows if row["done_at"] is None] or rows[:1]
    if not rows:
        raise ToolError(f'You have no todo called "{title}".')
    if len(rows) > 1:
        ids = ", ".join(str(row["todo_id"]) for row in rows[:_MOST_NAMED])
        raise ToolError(f'You have several todos called "{title}"; say which one by its id: {ids}.')
    return rows[0]


def _todo(row: Any) -> dict[str, Any]:
    return {
        "id": str(row["todo_id"]),
        "title": row["title"],
        "notes": row["notes"],
        "done": row["done_at"] is not None,
        "done_at": _time(row["done_at"]),
        "created_at": _time(row["created_at"]),
        "updated_at": _time(row["updated_at"]),
    }


def _time(value: datetime.datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds."""
    if value is None:
        return None
    return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
