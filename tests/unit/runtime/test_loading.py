"""Which sessions a partition's load takes up, and which it holds."""

import pytest
from kfm.catalogue.errors import HistoryUnreadable
from kfm.catalogue.events import EVENT_TYPES
from kfm.event.v1 import turn_events_pb2 as ev
from kfm_server.bus.engine import GROUP, EngineHolds
from kfm_server.bus.memory import MemoryBusStore
from kfm_server.clock import SystemClock
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.journal import Claim, Entry, Record, TurnRow
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.history import decode_event
from kfm_server.runtime.loading import MOST_FAILURES, SessionLoader

from tests.support.deciding import Desk

pytestmark = pytest.mark.requirement("R6")
STEP = {"key": "s1", "tool": "ledger_idempotent"}


class Place:
    """A journal with a session in which a turn runs and one is queued, and the dead letters."""

    def __init__(self) -> None:
        self.journal = MemoryJournal(partitions=1)
        self.letters = MemoryBusStore()

    async def fill(self) -> None:
        """Append the session's events."""
        desk = Desk()
        desk.submit("turn_1", STEP)
        desk.submit("turn_2", STEP)
        records = [
            Record(e.turn_id, e.sequence, EVENT_TYPES[e.type].topic, e.SerializeToString()) for e in desk.log
        ]
        turns = [TurnRow(id, "ses_1", "default", 0, "running", None, 1) for id in ("turn_1", "turn_2")]
        await self.journal.append(Entry(0, 0, tuple(records), tuple(turns)))

    def process(self) -> SessionLoader:
        """The loader of a process that knows nothing yet."""
        clock = SystemClock()
        return SessionLoader(self.journal, EngineHolds(self.letters, clock), clock, Broadcaster())

    async def tire(self, loader: SessionLoader) -> str:
        """The engine fails until the session is held; answers the letter."""
        for _ in range(MOST_FAILURES):
            assert [s.session_id for s in await loader.load(0, 0)] == ["ses_1"]
            loader.failed("ses_1", KeyError("gone"))
        return await self.held(loader)

    async def held(self, loader: SessionLoader) -> str:
        """The session is not taken up, and refused; answers its open letter."""
        assert await loader.load(0, 0) == []
        (letter,) = await self.letters.letters("default", GROUP, (0, ""), 10)
        with pytest.raises(HistoryUnreadable, match=letter.id):
            loader.check("ses_1")
        return letter.id

    async def settle(self, letter: str, *, drop: bool) -> None:
        """An operator decides."""
        claim = Claim("default", "ann", "rpc", f"{letter} {drop}", b"", b"")
        assert await self.letters.settle(claim, letter, drop=drop) is not None


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
    assert len(await loader.load(0, 0)) == 1


async def test_a_replay_is_one_more_try(place: Place) -> None:
    loader = place.process()
    letter = await place.tire(loader)
    await place.settle(letter, drop=False)
    (session,) = await loader.load(0, 0, released=True)
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
    (session,) = await loader.load(0, 0)
    assert session.active is None and [t.turn_id for t in session.queue] == ["turn_2"]
    last = (await place.journal.read_turn("turn_1", 0, 100))[-1]
    _, payload = decode_event(last.envelope)
    assert isinstance(payload, ev.TurnStateEvent)
    assert (payload.change, payload.outcome) == (ev.TURN_CHANGE_FINISHED, ev.OUTCOME_FAILED)
