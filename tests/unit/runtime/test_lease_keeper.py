"""Leases: renewed while a partition is loaded, given back only when nothing runs, not taken by who is to end."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types
from kfm_server.clock import SystemClock
from kfm_server.context import ExecutionContext
from kfm_server.journal.memory import MemoryJournal, MemoryLeases
from kfm_server.ports.journal import InboxItem, Lease, Stored
from kfm_server.ports.tools import ToolCall, ToolSpec
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.feeds import Feeds
from kfm_server.runtime.lane_parts import LaneParts
from kfm_server.runtime.lease_keeper import LeaseKeeper
from kfm_server.runtime.sessions import Sessions
from kfm_server.runtime.turn_manager import TurnDefaults, TurnManager
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.registry import ToolRegistry
from kfm_server.turns.decide.draft import World

pytestmark = pytest.mark.requirement("R8")
PARTITIONS = 2
Work = Callable[[], Awaitable[None]]


class Doing:
    """A tool that does what it is given."""

    def __init__(self, name: str, effect: types.EffectContract, work: Work, undo: str = "") -> None:
        self.spec = ToolSpec(name, name, {"type": "object"}, effect, undo)
        self._work = work

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Do it."""
        await self._work()
        return {}


class Slow(MemoryJournal):
    """A journal in which histories are read once the door is open."""

    def __init__(self) -> None:
        super().__init__(PARTITIONS)
        self.door, self.asked = asyncio.Event(), asyncio.Event()
        self.door.set()

    async def read_turns(self, turn_ids: Sequence[str]) -> Sequence[Stored]:
        """As the port says, in its time."""
        self.asked.set()
        await self.door.wait()
        return await super().read_turns(turn_ids)


class Counted(MemoryLeases):
    """Leases that tell of each renewal."""

    renewals = 0

    async def renew(self, owner: str) -> tuple[Sequence[Lease], Sequence[InboxItem]]:
        """As the port says."""
        self.renewals += 1
        return await super().renew(owner)


class Site:
    """The journal, the tools and what they did, for several processes.

    The forward tool begins, waits for `let_end` and, when it is cancelled, for `let_go`: what it does then still counts.
    """

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.tasks = tasks
        self.journal = Slow()
        self.done: list[str] = []
        self.begun, self.let_end, self.let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.registry = ToolRegistry(
            [
                Doing("forward", types.EFFECT_CONTRACT_COMPENSATABLE, self._forward, "undo"),
                Doing("undo", types.EFFECT_CONTRACT_IDEMPOTENT, self._undo),
            ]
        )
        self.processes: list[Process] = []

    async def _forward(self) -> None:
        self.begun.set()
        try:
            await self.let_end.wait()
        finally:
            await self.let_go.wait()
            self.done.append("forward")

    async def _undo(self) -> None:
        self.done.append("undo")

    def process(self, name: str) -> "Process":
        """A server that has not started."""
        self.processes.append(Process(self, name))
        return self.processes[-1]


class Process:
    """A server, wired as app.py wires it."""

    def __init__(self, world: Site, name: str) -> None:
        self.name, self._world = name, world
        clock, broadcaster = SystemClock(), Broadcaster()
        self.leases = Counted(world.journal)
        parts = LaneParts(
            journal=world.journal,
            runner=StepProcessor(world.registry.tools, world.registry.catalogue),
            clock=clock,
            world=World(
                tools=world.registry.catalogue, tools_digest=world.registry.digest, schema_release="1.1.0"
            ),
            broadcaster=broadcaster,
            spawn=self._spawn,
            late_result=lambda: None,
        )
        self.sessions = Sessions(world.journal, parts, PARTITIONS)
        self.keeper = LeaseKeeper(
            leases=self.leases,
            sessions=self.sessions,
            broadcaster=broadcaster,
            clock=clock,
            owner=name,
            address="",
            on_serving=lambda up: None,
        )
        self.manager = TurnManager(
            journal=world.journal,
            leases=self.leases,
            sessions=self.sessions,
            broadcaster=broadcaster,
            feeds=Feeds(
                leases=self.leases,
                sessions=self.sessions,
                broadcaster=broadcaster,
                owner=name,
                spawn=self._spawn,
            ),
            clock=clock,
            defaults=TurnDefaults(),
        )
        self._running: asyncio.Task[None] | None = None

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        return self._world.tasks.create_task(work, name=name)

    def run(self) -> None:
        """Keep the leases."""
        self._running = self._spawn(self.keeper.run(), "leases")
        self.leases.on_wake(self.keeper.posted)

    async def start(self) -> "Process":
        """Take what is free, and keep it."""
        await self.keeper.start(take_over=False)
        self.run()
        return self

    async def submit(self, session_id: str, step: dict[str, Any]) -> str:
        """Hand in a turn of one step, which may be tried but once; answers the turn's id."""
        spec = api.TurnSpec(
            session_id=session_id,
            input=[types.Part(data_json=json.dumps({"plan": {"steps": [{"key": "s1"} | step]}}))],
            limits=types.Limits(max_attempts=1),
        )
        accepted = await self.manager.submit(ExecutionContext(), spec, session_id, b"", "SubmitTurn")
        return accepted.turn_id

    def stop(self) -> None:
        """Keep no leases any more."""
        if self._running is not None:
            self._running.cancel()

    async def end(self) -> None:
        """As SIGTERM, without patience for its steps."""
        self.sessions.hold()
        self.stop()
        await self.keeper.release()


FORWARD = {"kind": "tool", "tool": "forward", "arguments": {}}
QUESTION = {"kind": "human", "instructions": "?"}


async def turns_to(condition: Callable[[], bool]) -> None:
    """Return once it holds, bounded."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 (what happens tells nobody)
            await asyncio.sleep(0.01)


async def loading(world: Site) -> Process:
    """A second process that has begun to load the partition of ses_1, and cannot go on before the journal's door opens."""
    one = await world.process("one").start()
    await one.submit("ses_1", QUESTION)
    await one.end()
    world.journal.door.clear()
    world.journal.asked.clear()
    two = world.process("two")
    two.run()
    await world.journal.asked.wait()
    return two


@pytest.fixture
async def world() -> AsyncIterator[Site]:
    async with asyncio.TaskGroup() as tasks:
        made = Site(tasks)
        yield made
        made.let_go.set()
        made.journal.door.set()
        for process in made.processes:
            process.stop()
            process.sessions.close()


@pytest.mark.requirement("I4")
async def test_what_a_process_has_to_cut_when_it_ends_is_undone_only_after_it_has_ended(
    world: Site,
) -> None:
    one = await world.process("one").start()
    await one.submit("ses_1", FORWARD)
    await world.begun.wait()
    ending = world.tasks.create_task(one.end())
    two = world.process("two")
    two.run()
    await turns_to(lambda: not one.sessions.owned)
    world.let_go.set()
    await ending
    await turns_to(lambda: len(world.done) == 2)
    assert world.done == ["forward", "undo"]


@pytest.mark.requirement("I4")
async def test_a_partition_in_which_a_cut_attempt_has_not_ended_is_not_given_back(world: Site) -> None:
    one = await world.process("one").start()
    await one.submit("ses_1", FORWARD)
    await world.begun.wait()
    await one.end()
    kept = one.sessions.partition("ses_1")
    for partition in range(PARTITIONS):
        holder = await one.leases.holder(partition)
        assert (holder is not None) == (partition == kept)


@pytest.mark.requirement("I4")
async def test_a_partition_dropped_for_a_failure_is_taken_up_again_after_what_was_cancelled_has_ended(
    world: Site,
) -> None:
    one = await world.process("one").start()
    await one.submit("ses_1", FORWARD)
    await world.begun.wait()
    owner = one.sessions.owned[one.sessions.partition("ses_1")]
    owner.fenced()
    await turns_to(lambda: owner.partition in one.sessions.taking)
    assert not world.done
    world.let_go.set()
    await turns_to(lambda: len(world.done) == 2)
    assert world.done == ["forward", "undo"]


@pytest.mark.requirement("FT21")
async def test_a_process_that_is_to_end_takes_nothing_and_gives_back_what_nothing_runs_in(
    world: Site,
) -> None:
    one = await world.process("one").start()
    await one.submit("ses_1", FORWARD)
    await world.begun.wait()
    busy = one.sessions.partition("ses_1")
    one.sessions.hold()
    one.keeper.wake()
    await turns_to(lambda: set(one.sessions.owned) == {busy})
    renewals = one.leases.renewals
    await turns_to(lambda: one.leases.renewals > renewals + 1)
    two = await world.process("two").start()
    assert set(one.sessions.owned) == {busy}
    assert set(two.sessions.owned) == set(range(PARTITIONS)) - {busy}


@pytest.mark.requirement("E2")
async def test_leases_are_renewed_while_a_partition_is_loaded_and_those_that_are_loaded_serve(
    world: Site,
) -> None:
    two = await loading(world)
    renewals = two.leases.renewals
    await turns_to(lambda: two.leases.renewals > renewals + 1)
    slow = two.sessions.partition("ses_1")
    assert slow in two.sessions.taking
    world.journal.door.set()
    await turns_to(lambda: len(two.sessions.owned) == PARTITIONS)
    assert two.sessions.live("ses_1") is not None


async def test_a_request_for_a_partition_that_is_being_loaded_is_answered_when_it_is_loaded(
    world: Site,
) -> None:
    two = await loading(world)
    names = (f"ses_other{n}" for n in range(100))
    same = next(s for s in names if two.sessions.partition(s) == two.sessions.partition("ses_1"))
    asked = world.tasks.create_task(two.submit(same, QUESTION))
    await turns_to(lambda: bool(world.journal.inbox))
    world.journal.door.set()
    assert await asked


def owned(*processes: Process) -> list[int]:
    """How many partitions each has loaded."""
    return [len(process.sessions.owned) for process in processes]


@pytest.mark.requirement("R10")
async def test_a_process_that_joins_gets_its_share_and_what_it_leaves_goes_to_the_others(world: Site) -> None:
    one = await world.process("one").start()
    assert owned(one) == [PARTITIONS]
    two = await world.process("two").start()
    await turns_to(lambda: owned(one, two) == [1, 1])
    three = await world.process("three").start()
    renewals = one.leases.renewals
    await turns_to(lambda: one.leases.renewals > renewals + 1)
    assert owned(one, two, three) == [1, 1, 0]
    await two.end()
    await turns_to(lambda: owned(one, three) == [1, 1])
    await one.end()
    await turns_to(lambda: owned(three) == [PARTITIONS])


@pytest.mark.requirement("R10", "I4")
async def test_a_partition_in_which_a_step_runs_is_handed_over_once_it_has_ended(world: Site) -> None:
    one = await world.process("one").start()
    names = [f"ses_{n}" for n in range(100)]
    each = [
        next(s for s in names if one.sessions.partition(s) == partition) for partition in range(PARTITIONS)
    ]
    turns = [await one.submit(session, FORWARD) for session in each]
    await turns_to(lambda: len(one.sessions.busy) >= PARTITIONS)
    two = await world.process("two").start()
    renewals = one.leases.renewals
    await turns_to(lambda: one.leases.renewals > renewals + 1)
    assert owned(one, two) == [PARTITIONS, 0]
    world.let_end.set()
    world.let_go.set()
    await turns_to(lambda: owned(one, two) == [1, 1])
    assert world.done == ["forward"] * PARTITIONS
    found = [await two.manager.get(ExecutionContext(), turn) for turn in turns]
    assert [turn.outcome for turn in found] == [ev.OUTCOME_SUCCEEDED] * PARTITIONS
