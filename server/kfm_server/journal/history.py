"""What the journal answers about sessions, in Postgres and in memory."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from kfm_server.ports.history import EndedTurn, SessionSummary
from kfm_server.ports.journal import Journal, Stored

Read = Callable[..., Awaitable[Sequence[Any]]]


class PostgresSessionRows:
    """The port SessionRows over the named reads of a PostgresJournal."""

    def __init__(self, read: Read) -> None:
        """`read`: PostgresJournal.rows."""
        self._read = read

    async def ended_before(
        self, tenant_id: str, session_id: str, offset: int, limit: int
    ) -> Sequence[EndedTurn]:
        """As the port says."""
        return [_pair(r) for r in await self._read("ended_before", tenant_id, session_id, offset, limit)]

    async def ended_after(
        self, tenant_id: str, session_id: str, offset: int, limit: int
    ) -> Sequence[EndedTurn]:
        """As the port says."""
        return [_pair(r) for r in await self._read("ended_after", tenant_id, session_id, offset, limit)]

    async def session(self, tenant_id: str, session_id: str) -> SessionSummary | None:
        """As the port says."""
        for row in await self._read("session", tenant_id, session_id):
            return SessionSummary(*row)
        return None

    async def sessions(self, tenant_id: str, before: str, limit: int) -> Sequence[SessionSummary]:
        """As the port says."""
        return [SessionSummary(*row) for row in await self._read("sessions", tenant_id, before, limit)]


def _pair(row: Any) -> EndedTurn:
    values = tuple(row)
    return EndedTurn(Stored(*values[:7]), Stored(*values[7:]))


class MemorySessionRows:
    """The port SessionRows over a journal in memory: it looks through all turns."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def _ended(self, tenant_id: str, session_id: str) -> list[EndedTurn]:
        rows = await self._journal.list_turns(
            tenant_id=tenant_id, session_id=session_id, phase="finished", before="", limit=sys.maxsize
        )
        found: list[EndedTurn] = []
        for row in rows:
            events = await self._journal.read_turn(row.turn_id, 0, sys.maxsize)
            found.append(EndedTurn(events[0], events[-1]))
        return sorted(found, key=lambda turn: turn.last.offset)

    async def ended_before(
        self, tenant_id: str, session_id: str, offset: int, limit: int
    ) -> Sequence[EndedTurn]:
        """As the port says."""
        found = [t for t in await self._ended(tenant_id, session_id) if t.last.offset < offset]
        return found[::-1][:limit]

    async def ended_after(
        self, tenant_id: str, session_id: str, offset: int, limit: int
    ) -> Sequence[EndedTurn]:
        """As the port says."""
        return [t for t in await self._ended(tenant_id, session_id) if t.last.offset > offset][:limit]

    async def session(self, tenant_id: str, session_id: str) -> SessionSummary | None:
        """As the port says."""
        rows = await self._journal.list_turns(
            tenant_id=tenant_id, session_id=session_id, phase="", before="", limit=sys.maxsize
        )
        if not rows:
            return None
        latest, first = rows[0], rows[-1]
        return SessionSummary(session_id, len(rows), first.submitted_us, latest.submitted_us, latest.turn_id)

    async def sessions(self, tenant_id: str, before: str, limit: int) -> Sequence[SessionSummary]:
        """As the port says."""
        rows = await self._journal.list_turns(
            tenant_id=tenant_id, session_id="", phase="", before="", limit=sys.maxsize
        )
        found = [await self.session(tenant_id, id) for id in dict.fromkeys(row.session_id for row in rows)]
        return [s for s in found if s is not None and (not before or s.last_turn_id < before)][:limit]
