"""Which steps run before anything of them is durable."""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm_server.clock import SystemClock
from kfm_server.context import ExecutionContext
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.journal import Claim, Entry
from kfm_server.ports.tools import ToolCall, ToolSpec
from kfm_server.runtime import quick
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.facts import Submitted
from kfm_server.runtime.lane_parts import LaneParts
from kfm_server.runtime.session_lane import SessionLane
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.registry import ToolRegistry, ToolsInvalid
from kfm_server.turns.decide.draft import World
from kfm_server.turns.state import Session
from kfm_server.turns.times import US, duration


class CountingJournal(MemoryJournal):
    """A journal that counts its appends."""

    def __init__(self) -> None:
        super().__init__()
        self.appends = 0

    async def append(self, entry: Entry) -> None:
        """Count it once it is done."""
        await super().append(entry)
        self.appends += 1


@dataclass
class Probe:
    """A tool that notes how many appends were done when it was called, and takes `burn` seconds of the processor."""

    journal: CountingJournal
    quick: bool
    burn: float = 0.0
    seen: list[int] = field(default_factory=list[int])

    @property
    def spec(self) -> ToolSpec:
        """PURE."""
        schema = {"type": "object"}
        return ToolSpec("probe", "Probes.", schema, types.EFFECT_CONTRACT_PURE, quick=self.quick)

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Note it."""
        self.seen.append(self.journal.appends)
        until = time.monotonic() + self.burn
        while time.monotonic() < until:
            pass
        return {}


@dataclass
class Owned:
    """Partition 0."""

    partition: int = 0
    epoch: int = 0

    def may_start(self) -> bool:
        """Always."""
        return True

    def fenced(self) -> None:
        """Never here."""
        raise AssertionError


async def _reload(session_id: str) -> Session:
    raise AssertionError("the engine failed")


async def run(probe: Probe, *, steps: int = 1, inbox_id: int = 0) -> None:
    """One turn of so many calls of the probe, one after the other, to its end."""
    registry = ToolRegistry([probe])
    ended = asyncio.Event()
    plan = [
        {"key": f"s{n}", "kind": "tool", "tool": "probe", "depends_on": [f"s{n - 1}"] if n else []}
        for n in range(steps)
    ]
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        parts = LaneParts(
            journal=probe.journal,
            runner=StepProcessor(registry.tools, registry.catalogue),
            clock=SystemClock(),
            world=World(tools=registry.catalogue, tools_digest="", schema_release="1.1.0"),
            broadcaster=Broadcaster(),
            spawn=lambda work, name: tasks.create_task(work, name=name),
            late_result=lambda: None,
        )
        lane = SessionLane(
            Session("ses_1"), Owned(), parts, lambda lane: ended.set(), lambda session, error: None, _reload
        )
        message = ev.TurnEvent(
            input=[types.Part(data_json=json.dumps({"plan": {"steps": plan}}))],
            timeout=duration(3600 * US),
            limits=types.Limits(
                max_steps=10, max_attempts=3, max_in_flight=16, step_timeout=duration(30 * US)
            ),
        )
        claim = Claim("default", "someone", "SubmitTurn", "k1", b"", b"")
        context = ExecutionContext(session_id="ses_1")
        lane.post(Submitted(context, "turn_1", message, claim, inbox_id=inbox_id))
        await ended.wait()


@pytest.mark.requirement("R8")
async def test_quick_steps_need_no_commit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quick, "INLINE_SECONDS", 10.0)  # a busy machine takes longer than steps may
    probe = Probe(CountingJournal(), quick=True)
    await run(probe, steps=3)
    assert (probe.seen, probe.journal.appends) == ([0, 0, 0], 1)


@pytest.mark.requirement("R8")
async def test_a_pure_step_that_is_not_quick_starts_once_and_after_its_dispatch_is_durable() -> None:
    probe = Probe(CountingJournal(), quick=False)
    await run(probe)
    assert probe.seen == [1]


@pytest.mark.requirement("R8")
async def test_what_comes_through_the_inbox_is_durable_before_its_quick_steps_run() -> None:
    probe = Probe(CountingJournal(), quick=True)
    await run(probe, inbox_id=1)
    assert probe.seen == [1]


async def test_quick_steps_that_use_up_their_time_let_the_rest_wait_for_the_commit() -> None:
    probe = Probe(CountingJournal(), quick=True, burn=0.003)
    await run(probe, steps=4)
    assert len(probe.seen) == 4 and probe.seen[-1] > 0


def test_only_pure_tools_may_be_quick() -> None:
    probe = Probe(CountingJournal(), quick=True)
    spec = probe.spec
    bad = ToolSpec(
        spec.name, spec.description, spec.input_schema, types.EFFECT_CONTRACT_IDEMPOTENT, quick=True
    )
    with pytest.raises(ToolsInvalid, match="quick"):
        ToolRegistry([_Stated(bad)])


@dataclass
class _Stated:
    """A tool that only states its spec."""

    spec: ToolSpec

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Never called."""
        raise AssertionError
