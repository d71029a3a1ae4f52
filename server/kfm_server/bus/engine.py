"""The group `engine`: the owner's own holds, on sessions that it could not fold, or failed at."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Final

import structlog
from kfm.catalogue.errors import KfmError

from kfm_server import metrics
from kfm_server.bus.letters import describe, letter_id, make_letter, plain
from kfm_server.clock import Clock
from kfm_server.ports.bus import BusUnavailable, CursorFenced, CursorStore, Hold
from kfm_server.ports.journal import Fenced, InboxItem, JournalUnavailable, Stored, TurnRow

log = structlog.get_logger(__name__)
GROUP: Final = "engine"
INBOX: Final = "inbox"
"""The group of requests that an owner could not decode."""


class EngineHolds:
    """The port `SessionHolds` over the bus's store. Its cursor does not move: it fences, and no more."""

    def __init__(self, store: CursorStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def held(self, partition: int) -> Mapping[str, Hold]:
        """As the port says."""
        with _as_journal(partition):
            return {hold.key: hold for hold in await self._store.holds(GROUP, partition)}

    async def released(self) -> frozenset[int]:
        """As the port says."""
        with _as_journal(0):
            return await self._store.released(GROUP)

    def letter_of(self, partition: int, hold: Hold) -> str:
        """As the port says."""
        return letter_id(GROUP, partition, hold.offset)

    async def hold(self, stored: Stored, turn: TurnRow, error: KfmError, epoch: int) -> str:
        """As the port says."""
        letter = make_letter(
            GROUP,
            stored,
            tenant_id=turn.tenant_id,
            session_id=plain(turn.session_id),
            key=plain(turn.session_id),
            error=describe(error),
            deliveries=1,
            now_us=self._clock.now_us(),
        )
        with _as_journal(stored.partition):
            await self._store.open(GROUP, stored.partition, epoch)
            await self._store.bury(letter, epoch, 0)
        metrics.BUS_DEAD_LETTERS.labels(GROUP, stored.topic).inc()
        log.error("session_held", session_id=turn.session_id, dead_letter_id=letter.id, error=error.message)
        return letter.id

    async def lift(self, partition: int, session_id: str, epoch: int) -> None:
        """As the port says."""
        with _as_journal(partition):
            await self._store.open(GROUP, partition, epoch)
            await self._store.lift(GROUP, partition, epoch, plain(session_id))
        log.info("hold_lifted", group=GROUP, partition=partition, session_id=session_id)

    async def keep(self, item: InboxItem, error: KfmError) -> str:
        """As the port says."""
        letter = make_letter(
            INBOX,
            Stored(item.partition, item.id, 0, "", 0, INBOX, item.envelope),
            tenant_id=item.claim.tenant_id if item.claim is not None else "",
            session_id="",
            key="",
            error=describe(error),
            deliveries=1,
            now_us=self._clock.now_us(),
        )
        with _as_journal(item.partition):
            await self._store.keep(letter)
        metrics.BUS_DEAD_LETTERS.labels(INBOX, INBOX).inc()
        return letter.id


@contextmanager
def _as_journal(partition: int) -> Generator[None]:
    """The runtime knows the journal's failures; the store's mean the same."""
    try:
        yield
    except CursorFenced:
        raise Fenced(partition) from None
    except BusUnavailable as gone:
        raise JournalUnavailable(str(gone)) from gone
