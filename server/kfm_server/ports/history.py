"""What was said in a session: for the models that answer in it, and for those who ask."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types

from kfm_server.ports.journal import Stored


@dataclass(frozen=True, slots=True)
class Exchange:
    """One turn that ended, as a conversation shows it. Times are microseconds since the epoch.

    `output` is empty when the turn did not succeed; `error` says why. `ended` orders the exchanges of a session.
    """

    turn_id: str
    input: tuple[types.Part, ...]
    output: tuple[types.Part, ...]
    outcome: ev.Outcome
    error: types.Error | None
    said_us: int
    answered_us: int
    ended: int


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What is known of a session. Times are those at which its first and its latest turn were submitted."""

    session_id: str
    turns: int
    created_us: int
    updated_us: int
    last_turn_id: str


class SessionHistory(Protocol):
    """The conversation of a session, read from the journal. Nothing of it changes once it was said.

    Every method may raise JournalUnavailable, and HistoryUnreadable for a turn that cannot be decoded.
    """

    async def before(self, tenant_id: str, session_id: str, turn_id: str, limit: int) -> list[Exchange]:
        """The last `limit` exchanges that had ended when the turn began, oldest first: at any time the same ones.

        Dropped turns are left out, and so is one of which a fork succeeded before. A fork is told what its
        parent was: it stands in its place. A turn that has not begun, or is not known, is told what ended so far.
        """
        ...

    async def messages(
        self, tenant_id: str, session_id: str, after: int, limit: int
    ) -> tuple[list[Exchange], int | None]:
        """Exchanges whose `ended` is greater, oldest first, dropped ones left out, and where more follow, if any do.

        A page is of `limit` turns before the dropped ones are taken off.
        """
        ...

    async def session(self, tenant_id: str, session_id: str) -> SessionSummary | None:
        """One session; None if the tenant has no turn in it."""
        ...

    async def sessions(self, tenant_id: str, before: str, limit: int) -> Sequence[SessionSummary]:
        """Sessions by the id of their latest turn, newest first, with id < before when given."""
        ...


@dataclass(frozen=True, slots=True)
class EndedTurn:
    """The first and the last event of a turn that ended."""

    first: Stored
    last: Stored


class SessionRows(Protocol):
    """What a store answers about sessions. Every method may raise JournalUnavailable."""

    async def ended_before(
        self, tenant_id: str, session_id: str, offset: int, limit: int
    ) -> Sequence[EndedTurn]:
        """Turns of the session whose last event lies below the offset, the latest first."""
        ...

    async def ended_after(
        self, tenant_id: str, session_id: str, offset: int, limit: int
    ) -> Sequence[EndedTurn]:
        """Turns of the session whose last event lies above the offset, the earliest first."""
        ...

    async def session(self, tenant_id: str, session_id: str) -> SessionSummary | None:
        """As SessionHistory."""
        ...

    async def sessions(self, tenant_id: str, before: str, limit: int) -> Sequence[SessionSummary]:
        """As SessionHistory."""
        ...
