"""The loop of a session."""

import asyncio
import json
from dataclasses import dataclass

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm_server.clock import SystemClock
from kfm_server.context import ExecutionContext
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.journal import Claim
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.facts import Accepted, Submitted
from kfm_server.runtime.history import decode_event
from kfm_server.runtime.session_lane import LaneParts, SessionLane
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.turns.decide.draft import US, World, duration
from kfm_server.turns.fold import micros
from kfm_server.turns.state import Session

from tests.support.deciding import REGISTRY


@dataclass
class Owned:
    """Partition 0 under epoch 0."""

    partition: int = 0
    epoch: int = 0

    def may_start(self) -> bool:
        """Always."""
        return True

    def fenced(self) -> None:
        """Nobody takes it."""


def lane_of(session: Session, owned: Owned, journal: MemoryJournal, tasks: asyncio.TaskGroup) -> SessionLane:
    """A lane that works in the group."""
    parts = LaneParts(
        journal=journal,
        runner=StepProcessor(REGISTRY.tools, REGISTRY.catalogue),
        clock=SystemClock(),
        world=World(tools=REGISTRY.catalogue, tools_digest=REGISTRY.digest, schema_release="1.1.0"),
        broadcaster=Broadcaster(),
        spawn=lambda work, name: tasks.create_task(work, name=name),
        late_result=lambda: None,
    )

    async def reload(session_id: str) -> Session:
        raise AssertionError("the engine failed")

    return SessionLane(session, owned, parts, lambda lane: None, lambda session, error: None, reload)


async def submit(lane: SessionLane, tool: str) -> Accepted:
    """Hand in a turn of one step, turn_1, and wait until it is accepted."""
    plan = {"plan": {"steps": [{"key": "s1", "kind": "tool", "tool": tool}]}}
    message = ev.TurnEvent(
        input=[types.Part(data_json=json.dumps(plan))],
        timeout=duration(3600 * US),
        limits=types.Limits(max_steps=10, max_attempts=3, max_in_flight=16, step_timeout=duration(30 * US)),
    )
    reply: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
    claim = Claim("default", "someone", "SubmitTurn", "k1", b"", b"")
    lane.post(Submitted(ExecutionContext(session_id="ses_1"), "turn_1", message, claim, reply=reply))
    return await reply


@pytest.mark.requirement("R8")
async def test_no_event_of_a_session_is_earlier_than_those_it_was_folded_from() -> None:
    journal, ahead_us = MemoryJournal(), SystemClock().now_us() + 3600 * US
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        lane = lane_of(Session("ses_1", recorded_us=ahead_us), Owned(), journal, tasks)
        await submit(lane, "ledger_pure")
        lane.close()
    times = [decode_event(e.envelope)[0].timestamp for e in await journal.read_turn("turn_1", 0, 100)]
    assert times and {micros(time) for time in times} == {ahead_us}
