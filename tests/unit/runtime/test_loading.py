"""Which sessions a partition's load takes up, and which it holds."""

import pytest
from kfm.catalogue.errors import HistoryUnreadable
from kfm.catalogue.events import EVENT_TYPES
from kfm.event.v1 import turn_events_pb2 as ev
from kfm_server.bus.engine import GROUP, EngineHolds
from kfm_server.bus.memory import MemoryBusStore
from kfm_server.clock import SystemClock
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.bus import BusUnavailable
from kfm_server.ports.journal import Claim, Entry, JournalUnavailable, Record, TurnRow
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.history import decode_event
from kfm_server.runtime.loading import MOST_FAILURES, SessionLoader
from kfm_server.turns.state import Session

from tests.support.deciding import Desk

pytestmark = pytest.mark.requirement("R6")
STEP = {"key": "s1", "tool": "ledger_idempotent"}


class Place:
    """A journal with a session in which a turn runs and one is queued, and the dead letters."""

    def __init__(self) -> None:
        self.journal = MemoryJournal(partitions=1)
        self.letters = MemoryBusStore()

    async def fill(self, session_id: str = "ses_1") -> None:
        """Append a session's events."""
        first, second = ("turn_1", "turn_2") if session_id == "ses_1" else ("turn_3", "turn_4")
        desk = Desk()
        desk.session = Session(session_id)
        desk.submit(first, STEP)
        desk.submit(second, STEP)
        records = [
            Record(e.turn_id, e.sequence, EVENT_TYPES[e.type].topic, e.SerializeToString()) for e in desk.log
        ]
        turns = [TurnRow(id, session_id, "default", 0, "running", None, 1) for id in (first, second)]
        await self.journal.append(Entry(0, 0, tuple(records), tuple(turns)))

    def process(self) -> SessionLoader:
        """The loader of a process that knows nothing yet."""
        clock = SystemClock()
        return SessionLoader(self.journal, EngineHolds(self.letters, clock), clock, Broadcaster())

    async def tire(self, loader: SessionLoader) -> str:
        """The engine fails until the session is held; answers the letter."""
        for _ in range(MOST_FAILURES):
            assert [s.session_id for s in await load(loader)] == ["ses_1"]
            loader.failed("ses_1", KeyError("gone"))
        return await self.held(loader)

    async def held(self, loader: SessionLoader) -> str:
        """The session is not taken up, and refused; answers its open letter."""
        assert await load(loader) == []
        (letter,) = await self.letters.letters("default", GROUP, (0, ""), 10)
        with pytest.raises(HistoryUnreadable, match=letter.id):
            loader.check("ses_1")
        return letter.id

    async def settle(self, letter: str, *, drop: bool) -> None:
        """An operator decides."""
        claim = Claim("default", "ann", "rpc", f"{letter} {drop}", b"", b"")
        assert await self.letters.settle(claim, letter, drop=drop) is not None


async def load(loader: SessionLoader, *, released: bool = False) -> list[Session]:
    """All that is loaded of the partition."""
    return [session async for session in loader.load(0, 0, released=released)]


@pytest.fixture
async def place() -> Place:
    made = Place()
    await made.fill()
    return made


async def test_a_session_at_which_the_engine_failed_a_few_times_is_held(place: Place) -> None:
    loader = place.process()
    await place.tire(loader)
    # Another process, which never tried, finds it held.
    await place.held(place.process())


async def test_failures_are_forgotten_when_every_turn_of_the_session_has_ended(place: Place) -> None:
    loader = place.process()
    for _ in range(MOST_FAILURES * 2):
        loader.failed("ses_1", KeyError("gone"))
        loader.rested("ses_1")
    assert len(await load(loader)) == 1


async def test_a_replay_is_one_more_try(place: Place) -> None:
    loader = place.process()
    letter = await place.tire(loader)
    await place.settle(letter, drop=False)
    (session,) = await load(loader, released=True)
    assert session.active is not None and session.active.turn_id == "turn_1"
    loader.failed("ses_1", KeyError("gone"))
    assert await place.held(loader) == letter


@pytest.mark.parametrize("same", [True, False], ids=["the process that failed", "another process"])
async def test_a_drop_ends_the_turn_failed_and_the_rest_of_the_session_is_taken_up(
    place: Place, same: bool
) -> None:
    loader = place.process()
    letter = await place.tire(loader)
    await place.settle(letter, drop=True)
    if not same:
        loader = place.process()
    (session,) = await load(loader)
    assert session.active is None and [t.turn_id for t in session.queue] == ["turn_2"]
    last = (await place.journal.read_turn("turn_1", 0, 100))[-1]
    _, payload = decode_event(last.envelope)
    assert isinstance(payload, ev.TurnStateEvent)
    assert (payload.change, payload.outcome) == (ev.TURN_CHANGE_FINISHED, ev.OUTCOME_FAILED)


class Forgetful(MemoryBusStore):
    """A store that is away when a hold is lifted for the second time."""

    lifted = 0

    async def lift(self, group: str, partition: int, epoch: int, key: str) -> None:
        """As the port says, but once."""
        self.lifted += 1
        if self.lifted == 2:
            raise BusUnavailable("away for a moment")
        await super().lift(group, partition, epoch, key)


async def test_of_sessions_released_together_one_is_taken_up_although_the_next_hold_cannot_be_lifted_yet() -> (
    None
):
    place = Place()
    place.letters = Forgetful()
    await place.fill("ses_1")
    await place.fill("ses_2")
    loader = place.process()
    for session_id in ("ses_1", "ses_2") * MOST_FAILURES:
        loader.failed(session_id, KeyError("gone"))
    assert await load(loader) == []
    for letter in await place.letters.letters("default", GROUP, (0, ""), 10):
        await place.settle(letter.id, drop=False)
    taken: list[str] = []
    with pytest.raises(JournalUnavailable):
        async for session in loader.load(0, 0, released=True):
            taken.append(session.session_id)
    taken += [session.session_id for session in await load(loader, released=True)]
    assert sorted(taken) == ["ses_1", "ses_2"]
