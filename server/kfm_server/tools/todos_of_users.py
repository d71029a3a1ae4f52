"""The todo lists of the tool todo_store as data of users: what memory shows of a user, and erases."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any

from kfm_server.ports.journal import JournalUnavailable
from kfm_server.ports.memory import MemoryUnavailable

Rows = Callable[..., Awaitable[Sequence[Any]]]


class TodosOfUsers:
    """Todos are their principal's: a user's are those that its turns wrote. At most MAX_TODOS of each."""

    name = "todos"

    def __init__(self, rows: Rows) -> None:
        """`rows`: the named statements of the database."""
        self._rows = rows

    async def export(self, tenant_id: str, user_id: str) -> AsyncGenerator[Mapping[str, Any]]:
        """Each todo. Raises MemoryUnavailable."""
        for todo in await self._ask("todos_of", tenant_id, user_id):
            yield {name: _shown(value) for name, value in todo.items() if value is not None}

    async def erase(self, tenant_id: str, user_id: str) -> int:
        """Erase them; answers how many there were. Raises MemoryUnavailable."""
        return len(await self._ask("erase_todos", tenant_id, user_id))

    async def _ask(self, statement: str, tenant_id: str, user_id: str) -> Sequence[Any]:
        try:
            return await self._rows(statement, tenant_id, user_id)
        except JournalUnavailable as away:
            raise MemoryUnavailable(str(away)) from away


def _shown(value: Any) -> str:
    return (
        value if isinstance(value, str) else value.isoformat() if hasattr(value, "isoformat") else str(value)
    )
