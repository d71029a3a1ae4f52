"""When the engine fails at one session, only that session is loaded again; its neighbours notice nothing."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kfm.catalogue.errors import HistoryUnreadable
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types
from kfm_server.bus.engine import GROUP, EngineHolds
from kfm_server.bus.memory import MemoryBusStore
from kfm_server.clock import SystemClock
from kfm_server.context import ExecutionContext
from kfm_server.journal.memory import MemoryJournal, MemoryTransaction
from kfm_server.ports.journal import Claim, Entry, Lease, Rejected
from kfm_server.ports.tools import ToolCall, ToolSpec
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.facts import Accepted, Submitted
from kfm_server.runtime.lane_parts import LaneParts
from kfm_server.runtime.sessions import OwnedPartition, Sessions
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.registry import ToolRegistry
from kfm_server.turns.decide.draft import World
from kfm_server.turns.state import Turn
from kfm_server.turns.times import US, duration

pytestmark = pytest.mark.requirement("R6", "R8", "FT4")
Work = Callable[[], Awaitable[Any]]


class Doing:
    """A tool that does what it is given."""

    def __init__(self, name: str, effect: types.EffectContract, work: Work) -> None:
        self.spec = ToolSpec(name, name, {"type": "object"}, effect)
        self._work = work

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Do it."""
        return await self._work()


class Unsteady(MemoryJournal):
    """A journal whose transactions break: by a bug, so often as `bugs` says, or because a commit is `refused`."""

    def __init__(self) -> None:
        super().__init__(partitions=1)
        self.bugs = 0
        self.refused = False

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[MemoryTransaction]:
        """As the port says, or not at all."""
        if self.bugs:
            self.bugs -= 1
            raise LookupError("a bug")
        async with super().transaction() as transaction:
            yield Refusing(self) if self.refused else transaction


class Refusing(MemoryTransaction):
    """What the tool did with it cannot be committed."""

    async def commit(self, entry: Entry) -> None:
        """Refuse."""
        raise Rejected("current transaction is aborted")


class Place:
    """One partition in which the step of a session that may start but once runs, until `let_end`."""

    def __init__(self, tasks: asyncio.TaskGroup) -> None:
        self.journal = Unsteady()
        self.letters = MemoryBusStore()
        self.begun, self.let_end = asyncio.Event(), asyncio.Event()
        registry = ToolRegistry(
            [
                Doing("once", types.EFFECT_CONTRACT_AT_MOST_ONCE, self._once),
                Doing("tx", types.EFFECT_CONTRACT_TRANSACTIONAL, self._nothing),
            ]
        )
        clock = SystemClock()
        parts = LaneParts(
            journal=self.journal,
            runner=StepProcessor(registry.tools, registry.catalogue),
            clock=clock,
            world=World(tools=registry.catalogue, tools_digest=registry.digest, schema_release="1.1.0"),
            broadcaster=Broadcaster(),
            spawn=lambda work, name: tasks.create_task(work, name=name),
            late_result=lambda: None,
        )
        self.sessions = Sessions(self.journal, parts, 1, EngineHolds(self.letters, clock))
        self.fenced: list[int] = []

    async def _once(self) -> Any:
        self.begun.set()
        await self.let_end.wait()
        return {}

    async def _nothing(self) -> Any:
        return {}

    async def take(self) -> None:
        """Own the partition."""
        owner = OwnedPartition(
            0, 0, lambda _: float("inf"), SystemClock().monotonic, lambda lost: self.fenced.append(0)
        )
        await self.sessions.take(Lease(0, 0, "me", ""), owner)

    async def submit(self, session_id: str, *steps: dict[str, Any], inbox_id: int = 0) -> Accepted:
        """Hand in a turn, called as its session with turn_ in front."""
        turn_id = f"turn_{session_id}"
        message = ev.TurnEvent(
            input=[types.Part(data_json=json.dumps({"plan": {"steps": steps}}))],
            timeout=duration(3600 * US),
            limits=types.Limits(
                max_steps=1000, max_attempts=3, max_in_flight=16, step_timeout=duration(30 * US)
            ),
        )
        reply: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        claim = Claim("default", "someone", "SubmitTurn", session_id, b"", b"")
        context = ExecutionContext(session_id=session_id)
        lane = self.sessions.lane(session_id)
        assert lane is not None
        lane.post(Submitted(context, turn_id, message, claim, reply=reply, inbox_id=inbox_id))
        return await reply

    async def neighbour(self) -> None:
        """Start the step that may start but once."""
        await self.submit("ses_near", step("s1", "once"))
        await self.begun.wait()

    async def ended(self, turn_id: str) -> Turn:
        """The turn, once it has ended."""
        async with asyncio.timeout(20):
            while True:
                turn = await self.sessions.load_turn(turn_id)
                if turn is not None and turn.phase == api.TURN_STATE_FINISHED:
                    return turn
                await asyncio.sleep(0)

    async def neighbour_goes_on(self) -> None:
        """Its step ends well, at its first attempt."""
        assert self.sessions.live("ses_near") is not None and not self.fenced
        self.let_end.set()
        turn = await self.ended("turn_ses_near")
        assert (turn.outcome, turn.steps["s1"].attempt) == (ev.OUTCOME_SUCCEEDED, 1)


def step(key: str, tool: str, *after: str) -> dict[str, Any]:
    """A step of a plan."""
    return {"key": key, "kind": "tool", "tool": tool, "arguments": {}, "depends_on": list(after)}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with asyncio.TaskGroup() as tasks:
        made = Place(tasks)
        await made.take()
        yield made
        made.sessions.close()


async def test_a_session_at_which_the_engine_fails_once_is_loaded_again_by_itself_and_goes_on(
    place: Place,
) -> None:
    await place.neighbour()
    place.journal.bugs = 1
    await place.submit("ses_1", step("s1", "tx"))
    assert (await place.ended("turn_ses_1")).outcome == ev.OUTCOME_SUCCEEDED
    await place.neighbour_goes_on()


async def test_a_session_at_which_the_engine_fails_three_times_is_held_and_its_partition_is_not(
    place: Place,
) -> None:
    await place.neighbour()
    place.journal.bugs = 3
    await place.submit("ses_1", step("s1", "tx"))
    async with asyncio.timeout(20):
        while place.sessions.live("ses_1") is not None:  # noqa: ASYNC110 (what happens tells nobody)
            await asyncio.sleep(0)
    (letter,) = await place.letters.letters("default", GROUP, (0, ""), 10)
    with pytest.raises(HistoryUnreadable, match=letter.id):
        place.sessions.lane("ses_1")
    await place.neighbour_goes_on()


async def test_a_tool_that_spoils_its_transaction_fails_its_step_and_nothing_else(place: Place) -> None:
    await place.neighbour()
    place.journal.refused = True
    await place.submit("ses_1", step("s1", "tx"))
    turn = await place.ended("turn_ses_1")
    assert turn.outcome == ev.OUTCOME_FAILED and turn.steps["s1"].attempt == 1
    assert turn.error is not None and "transaction is aborted" in turn.error.message
    await place.neighbour_goes_on()


async def test_a_chain_of_a_thousand_transactional_steps_runs_to_its_end(place: Place) -> None:
    await place.neighbour()
    chain = [step(f"s{n}", "tx", *([f"s{n - 1}"] if n else [])) for n in range(1000)]
    await place.submit("ses_1", *chain)
    assert (await place.ended("turn_ses_1")).outcome == ev.OUTCOME_SUCCEEDED
    await place.neighbour_goes_on()
