"""The todo list on a real database: one per principal, idempotent, and gone with its transaction."""

import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from kfm_server.journal import embedded
from kfm_server.journal.migrate import migrate
from kfm_server.ports.tools import ToolCall, ToolError
from kfm_server.tools.registry import build_registry
from kfm_server.tools.todo_store import TodoStore

pytestmark = pytest.mark.requirement("T1")

_ENTRY = build_registry().catalogue["todo_store"]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture(scope="module")
async def dsn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    postgres = await embedded.start(Path(tmp_path_factory.mktemp("todos")))
    try:
        await migrate(postgres.dsn)
        yield postgres.dsn
    finally:
        await postgres.stop()


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[Any]:
    """A transaction as the engine lends it; rolled back after the test."""
    connection: Any = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection
    finally:
        await transaction.rollback()
        await connection.close()


async def _do(
    connection: Any, key: str = "", principal: str = "ann", tenant: str = "acme", **arguments: Any
) -> Any:
    assert _ENTRY.problem(arguments) == ""
    call = ToolCall(key or uuid.uuid4().hex, 1, 1, tenant, principal, lambda message: None, connection)
    return await TodoStore().call(arguments, call)


async def test_a_todo_is_stored_and_shown(connection: Any) -> None:
    added = await _do(connection, action="add", title="buy milk", notes="two")
    assert added["text"] == 'Added "buy milk" to your todos.'
    todo = added["todo"]
    assert uuid.UUID(todo["id"]).version == 7
    assert _TIME.fullmatch(todo["created_at"])
    listed = await _do(connection, action="list")
    assert listed == {"todos": [todo], "total": 1, "text": "You have 1 todo:\n1. [ ] buy milk"}


async def test_adding_again_under_the_same_key_adds_nothing(connection: Any) -> None:
    first = await _do(connection, "key", action="add", title="buy milk")
    assert await _do(connection, "key", action="add", title="buy milk") == first
    assert (await _do(connection, action="list"))["total"] == 1


async def test_nobody_sees_the_todos_of_another(connection: Any) -> None:
    mine = await _do(connection, "key", action="add", title="buy milk")
    assert (await _do(connection, principal="bob", action="list"))["text"] == "You have no todos."
    assert (await _do(connection, tenant="other", action="list"))["total"] == 0
    with pytest.raises(ToolError, match="no todo with the id"):
        await _do(connection, principal="bob", action="delete", id=mine["todo"]["id"])
    other = await _do(connection, "key", principal="bob", action="add", title="buy tea")
    assert other["todo"]["id"] != mine["todo"]["id"]


async def test_a_todo_is_completed_reopened_renamed_and_deleted(connection: Any) -> None:
    todo = (await _do(connection, action="add", title="Buy milk"))["todo"]
    done = await _do(connection, action="complete", title="buy MILK")
    assert done["todo"]["done"] and _TIME.fullmatch(done["todo"]["done_at"])
    assert (await _do(connection, action="complete", id=todo["id"]))["text"] == '"Buy milk" was done already.'
    assert (await _do(connection, action="list", filter="open"))["text"] == "You have no open todos."
    assert "[x] Buy milk" in (await _do(connection, action="list", filter="done"))["text"]
    reopened = await _do(connection, action="update", id=todo["id"], done=False)
    assert reopened["todo"]["done_at"] is None
    assert reopened["text"] == 'Updated "Buy milk": it is open again.'
    renamed = await _do(connection, action="update", title="Buy milk", new_title="Buy oat milk")
    assert renamed["text"] == 'Updated "Buy milk": it is now "Buy oat milk".'
    assert (await _do(connection, action="delete", title="Buy oat milk"))[
        "text"
    ] == 'Deleted "Buy oat milk" from your todos.'
    assert (await _do(connection, action="list"))["total"] == 0


async def test_a_title_that_several_todos_have_is_not_guessed(connection: Any) -> None:
    ids = [(await _do(connection, action="add", title="buy milk"))["todo"]["id"] for _ in range(2)]
    with pytest.raises(ToolError, match="several todos") as raised:
        await _do(connection, action="delete", title="buy milk")
    assert all(name in str(raised.value) for name in ids)
    await _do(connection, action="complete", id=ids[0])
    completed = await _do(connection, action="complete", title="buy milk")
    assert completed["todo"]["id"] == ids[1], "the one that is still open"
    with pytest.raises(ToolError, match='no todo called "buy tea"'):
        await _do(connection, action="complete", title="buy tea")


async def test_a_long_list_shows_the_newest_and_says_how_much_is_left_out(connection: Any) -> None:
    for number in range(103):
        await _do(connection, action="add", title=f"todo {number}")
    listed = await _do(connection, action="list")
    assert (len(listed["todos"]), listed["total"]) == (100, 103)
    assert [listed["todos"][at]["title"] for at in (0, -1)] == ["todo 3", "todo 102"]
    lines = listed["text"].splitlines()
    assert lines[0] == "You have 103 todos; the newest 100 are shown, 3 older left out:"
    assert (lines[1], lines[-1]) == ("4. [ ] todo 3", "103. [ ] todo 102")


async def test_what_is_rolled_back_was_never_added(dsn: str) -> None:
    connection: Any = await asyncpg.connect(dsn)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await _do(connection, action="add", title="buy milk", principal="rolled")
        await transaction.rollback()
        assert (await _do(connection, action="list", principal="rolled"))["total"] == 0
    finally:
        await connection.close()


async def test_a_lost_connection_may_be_tried_again(dsn: str) -> None:
    connection: Any = await asyncpg.connect(dsn)
    await connection.close()
    with pytest.raises(ToolError) as raised:
        await _do(connection, action="list")
    assert raised.value.retryable


async def test_without_a_database_it_says_so() -> None:
    with pytest.raises(ToolError, match="needs a database"):
        await _do(None, action="list")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"action": "drop"},
        {"action": "add"},
        {"action": "add", "title": ""},
        {"action": "add", "title": "  "},
        {"action": "add", "title": "x" * 501},
        {"action": "add", "title": "a\x00b"},
        {"action": "add", "title": "a", "filter": "all"},
        {"action": "list", "title": "a"},
        {"action": "list", "limit": 0},
        {"action": "complete"},
        {"action": "complete", "id": "x", "title": "a"},
        {"action": "update", "title": "a"},
        {"action": "delete", "id": "'; drop table todos"},
        {"action": "list", "tenant_id": "other"},
    ],
)
def test_arguments_that_make_no_sense_do_not_pass_the_schema(arguments: dict[str, Any]) -> None:
    assert _ENTRY.problem(arguments)
