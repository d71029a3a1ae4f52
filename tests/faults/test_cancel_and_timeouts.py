"""FT14: a turn that is cancelled or takes too long ends, at whatever point it stands, and leaves nothing running."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from xenocomm import Client, Outcome, ResultTimeout, TurnHandle, TurnState, errors
from xenocomm._gen.types import Envelope, TurnChange, TurnStateEvent, WaitReason

from tests.faults.conftest import Report
from tests.faults.footprint import Footprint, footprint, settled
from tests.faults.work import FIVE_TOOLS, amount
from tests.support.ledger import read_ledger
from tests.support.live import LiveServer
from tests.support.plans import Gate, call, given, question, started, until, waits

pytestmark = pytest.mark.requirement("R9", "FT14", "I9")

CANCELLABLE = FIVE_TOOLS[:2]
"""PURE and IDEMPOTENT: these attempts are cut. What others do is awaited, for it may have had its effect."""
TIMEOUTS = (0.05, 0.2, 1.0, 5.0)[: amount("KFM_TEST_TIMEOUTS", 4, 3)]


@dataclass
class Site:
    """A server that has worked and rests, a client of it, and a gate for held tools. Afterwards it holds no more."""

    server: LiveServer
    kfm: Client
    gate: Gate
    rested: Footprint

    async def held(self, tool: str, **how: Any) -> TurnHandle:
        """A turn whose first step waits for the gate, and whose second follows it."""
        plan = given(call("s1", tool, hold=self.gate.hold), call("s2", "ledger_idempotent", "s1"))
        return await self.kfm.turns.start(plan, **how)

    def ledger(self, turn: TurnHandle) -> list[str]:
        """Steps of the turn whose tools came as far as their effect."""
        calls = read_ledger(self.server.home / "ledger.jsonl")
        return [c["key"].partition(":")[2] for c in calls if c["key"].startswith(turn.id)]


@pytest.fixture(scope="module")
def server() -> Generator[LiveServer]:
    """One for all tests of this file."""
    home = Path(tempfile.mkdtemp(prefix="kfm-cancel-"))
    home.chmod(0o755)  # Postgres runs as another user when we are root
    server = LiveServer(
        home,
        tools="tests.support.ledger:TOOLS",
        environment={"LEDGER_FILE": str(home / "ledger.jsonl")},
    )
    try:
        server.start()
        yield server
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def site(server: LiveServer, tmp_path: Path) -> AsyncIterator[Site]:
    async with Client(server.grpc, timeout=20) as kfm:
        plan = given(*(call(f"s{i}", tool) for i, tool in enumerate(FIVE_TOOLS)))
        await asyncio.gather(*(kfm.turns.run(plan) for _ in range(16)))
        rested = await asyncio.to_thread(footprint, server)
        yield Site(server, kfm, Gate(tmp_path / "gate"), rested)
        await settled(server, rested)


def lateness(events: list[Envelope]) -> timedelta:
    """From a turn's deadline to its last event."""
    begun = next(e.event for e in events if _is_change(e, TurnChange.STARTED))
    assert isinstance(begun, TurnStateEvent) and begun.deadline is not None
    last = events[-1].timestamp
    assert last is not None
    return last - begun.deadline


def _is_change(envelope: Envelope, change: TurnChange) -> bool:
    return isinstance(envelope.event, TurnStateEvent) and envelope.event.change == change


async def history(turn: TurnHandle) -> list[Envelope]:
    """All events, when it has ended."""
    return [e async for e in turn.events(timeout=20)]


async def test_a_turn_that_takes_too_long_ends_as_timed_out_whatever_runs(site: Site, report: Report) -> None:
    # Those that are awaited come first: when the last of the others has ended, their time is up, too.
    awaited = [await site.held(tool, timeout=limit) for tool in FIVE_TOOLS[2:] for limit in TIMEOUTS]
    cut = [await site.held(tool, timeout=limit) for tool in CANCELLABLE for limit in TIMEOUTS]
    late: list[timedelta] = []
    for turn in cut:
        events = await history(turn)
        late.append(lateness(events))
        assert isinstance(events[-1].event, TurnStateEvent)
        assert events[-1].event.outcome == Outcome.TIMED_OUT
    site.gate.open()
    for turn in awaited:
        done = await turn.result(check=False)
        assert (done.outcome, done.effects_done) == (Outcome.TIMED_OUT, ("s1",))
        assert site.ledger(turn) == ["s1"]
    assert [site.ledger(turn) for turn in cut] == [[]] * len(cut)
    report(latest_end_ms=round(max(late).total_seconds() * 1000, 1), turns=len(cut) + len(awaited))


@pytest.mark.parametrize("tool", FIVE_TOOLS)
async def test_a_turn_that_is_cancelled_while_a_step_runs_ends_as_its_contract_allows(
    site: Site, tool: str
) -> None:
    turn = await site.held(tool)
    await until(turn, started("s1"))
    if tool == "ledger_transactional":
        # It holds the cancellation back until it has committed; by then the turn may be at its end.
        cancelling = asyncio.create_task(turn.cancel("no longer wanted"), name="cancel")
        site.gate.open()
        with contextlib.suppress(errors.TurnFinished):
            await cancelling
        assert (await turn.result(check=False)).outcome in (Outcome.CANCELLED, Outcome.SUCCEEDED)
        assert site.ledger(turn)[:1] == ["s1"]
        return
    await turn.cancel("no longer wanted")
    if tool in CANCELLABLE:
        assert _is_change((await history(turn))[-1], TurnChange.FINISHED)
    site.gate.open()
    assert (await turn.result(check=False)).outcome == Outcome.CANCELLED
    assert site.ledger(turn) == ([] if tool in CANCELLABLE else ["s1"])


async def test_a_turn_can_be_cancelled_wherever_it_waits(site: Site) -> None:
    first = await site.held("ledger_idempotent")
    queued = await site.held("ledger_pure", session_id=first.session_id)
    paused = await site.held("ledger_idempotent")
    await paused.pause()
    asked = await site.kfm.turns.start(given(question("ask")))
    step = call("s1", "ledger_idempotent", timeout_ms=50, hold=site.gate.hold)
    backing_off = await site.kfm.turns.start(given(step))
    step = call("s1", "ledger_once", timeout_ms=50, hold=site.gate.hold)
    unsure = await site.kfm.turns.start(given(step))
    await until(asked, waits(WaitReason.HUMAN))
    await until(unsure, waits(WaitReason.NEEDS_REVIEW))
    await until(backing_off, waits(WaitReason.RETRY_BACKOFF))
    for turn in (queued, paused, asked, backing_off, unsure, first):
        assert (await turn.cancel()).outcome == Outcome.CANCELLED
        events = await history(turn)
        assert _is_change(events[-1], TurnChange.FINISHED)
        with pytest.raises(errors.TurnFinished):
            await turn.cancel()
    site.gate.open()


async def test_a_cancel_that_comes_at_any_moment_ends_the_turn_once(site: Site) -> None:
    # The last step is held, so that no turn ends before its cancel comes.
    last = call("last", "ledger_idempotent", hold=site.gate.hold)
    plan = given(*(call(f"s{i}", tool) for i, tool in enumerate(FIVE_TOOLS)), last)

    async def play(number: int) -> int:
        turn = await site.kfm.turns.start(plan)
        reading = turn.events()
        async with contextlib.aclosing(reading):  # type: ignore[type-var]
            async for event in reading:
                if event.sequence >= number:
                    break
        await turn.cancel()
        events = await history(turn)
        assert [e.sequence for e in events] == list(range(1, len(events) + 1))
        assert sum(_is_change(e, TurnChange.FINISHED) for e in events) == 1
        return (await turn.get()).outcome

    outcomes = await asyncio.gather(*(play(number) for number in range(1, 15)))
    assert set(outcomes) == {Outcome.CANCELLED}
    site.gate.open()


async def test_a_deadline_of_a_call_ends_the_call_and_not_the_turn(site: Site) -> None:
    turn = await site.held("ledger_idempotent")
    with pytest.raises(ResultTimeout):
        await turn.result(timeout=0.2)
    with pytest.raises(errors.DeadlineExceeded):
        _ = [e async for e in turn.events(timeout=0.2)]
    shown = await turn.get()
    site.gate.open()
    done = await turn.result()
    assert (shown.state, done.outcome) == (TurnState.RUNNING, Outcome.SUCCEEDED)
