"""A worker on a broker in memory: which steps it takes, what it publishes, and how far its group's position moves."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from kfm.catalogue.events import fill
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.type.v1 import type_pb2 as types
from kfm_server.bus.memory import MemoryBroker
from kfm_server.clock import SystemClock
from kfm_server.ports.broker import OFFSET, POOL, RESULTS, STEPS, Message, Received, message_id, pool_group
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.registry import ToolRegistry
from kfm_server.worker import bus_worker
from kfm_server.worker.bus_worker import BusWorker

from tests.unit.worker.gated import Gated

pytestmark = pytest.mark.requirement("R7", "R10")

SECONDS = 10.0
PARTITION = 3
IDEMPOTENT, ONCE = types.EFFECT_CONTRACT_IDEMPOTENT, types.EFFECT_CONTRACT_AT_MOST_ONCE


class Topics:
    """The broker, and both sides of it that are not the worker's."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self._published = asyncio.Event()
        self.broker.published.append(self._published.set)

    async def dispatch(
        self,
        key: str,
        *,
        pool: str = "gpu",
        effect: types.EffectContract = IDEMPOTENT,
        headers: dict[str, str] | None = None,
        payload: bytes = b"",
        partition: int = PARTITION,
    ) -> None:
        """Publish a dispatch, as the relay does."""
        sent = ev.StepEvent(
            step_key=key,
            step_type=types.STEP_KIND_TOOL,
            tool="gated",
            parameters_json='{"n": 1}',
            pool=pool,
            contract=effect,
            key=f"t/{key}",
            principal="ann",
        )
        now = SystemClock().now_us()
        sent.start_by.FromMicroseconds(now + 20_000_000)
        sent.deadline.FromMicroseconds(now + 40_000_000)
        envelope = Envelope(event_id=f"e-{key}", tenant_id="acme", session_id="s", turn_id="t", attempt=2)
        fill(envelope, sent)
        said = {OFFSET: "7", POOL: pool} if headers is None else headers
        message = Message(payload or envelope.SerializeToString(), message_id(envelope.event_id), said)
        await self.broker.publish(STEPS, partition, [message])

    async def results(self, count: int) -> Sequence[Received]:
        """Wait until so many are published; answers all there are."""
        async with asyncio.timeout(SECONDS):
            while True:
                self._published.clear()
                found = await self.broker.read(RESULTS, PARTITION, 0, 100)
                if len(found) >= count:
                    return found
                await self._published.wait()

    async def committed(self) -> int:
        """How far the group has come."""
        return (await self.broker.committed(pool_group("gpu"), STEPS))[PARTITION]


def step_of(message: Received) -> str:
    """Whose result it is."""
    envelope = Envelope.FromString(message.payload)
    return ev.StepResultEvent.FromString(envelope.payload.value).step_key


@contextlib.asynccontextmanager
async def working(topics: Topics, *tools: Gated, capacity: int = 4) -> AsyncGenerator[BusWorker]:
    """A worker that takes steps until the block ends; then it is gone as one that was killed."""
    registry = ToolRegistry(tools)
    async with topics.broker.group(pool_group("gpu"), STEPS) as group, asyncio.TaskGroup() as tasks:
        started: list[asyncio.Task[None]] = []

        def spawn(work: Any) -> asyncio.Task[None]:
            started.append(tasks.create_task(work))
            return started[-1]

        clock = SystemClock()
        worker = BusWorker(
            topics.broker,
            group,
            StepProcessor(registry.tools, registry.catalogue, clock).run,
            pool="gpu",
            name="w1",
            capacity=capacity,
            clock=clock,
            spawn=spawn,
        )
        spawn(worker.run())
        try:
            yield worker
        finally:
            for task in started:
                task.cancel()


async def left(worker: BusWorker) -> None:
    """It has done what it had, and committed it."""
    async with asyncio.timeout(SECONDS):
        await worker.leave()


async def test_a_dispatch_is_performed_and_its_result_published_on_the_same_partition() -> None:
    topics, tool = Topics(), Gated()
    tool.opened.set()
    await topics.dispatch("a")
    async with working(topics, tool) as worker:
        (message,) = await topics.results(1)
        call = await tool.called()
        assert (call.key, call.attempt, call.tenant_id, call.principal) == ("t/a", 2, "acme", "ann")
        envelope = Envelope.FromString(message.payload)
        result = ev.StepResultEvent.FromString(envelope.payload.value)
        assert (result.step_key, result.status, result.worker) == ("a", ev.STEP_STATUS_SUCCEEDED, "w1")
        assert json.loads(result.output_json) == {"output": "done", "n": 1}
        assert (envelope.session_id, envelope.turn_id, envelope.attempt) == ("s", "t", 2)
        assert OFFSET not in message.headers  # it is no copy of an event
        await left(worker)
    assert await topics.committed() == 1


async def test_what_is_not_for_the_pool_or_could_do_harm_twice_is_passed_over() -> None:
    topics, tool = Topics(), Gated(effect=IDEMPOTENT)
    tool.opened.set()
    await topics.dispatch("others", pool="cpu")
    await topics.dispatch("once", effect=ONCE)
    await topics.dispatch("strangers", headers={POOL: "gpu"})  # whoever published it is not the relay
    await topics.dispatch("broken", payload=b"\xff")
    await topics.dispatch("ours")
    async with working(topics, tool) as worker:
        (message,) = await topics.results(1)
        assert step_of(message) == "ours"
        await left(worker)
    assert tool.calls.qsize() == 1
    assert await topics.committed() == 5


async def test_the_position_moves_up_to_the_first_that_is_not_done_and_the_rest_comes_again() -> None:
    topics, slow, quick = Topics(), Gated(), Gated()
    await topics.dispatch("a")
    async with working(topics, slow):
        await slow.called()  # and it never ends there
    assert await topics.committed() == 0
    quick.opened.set()
    await topics.dispatch("b")
    async with working(topics, quick) as worker:
        assert {step_of(message) for message in await topics.results(2)} == {"a", "b"}
        await left(worker)
    assert await topics.committed() == 2


async def test_a_partition_goes_to_another_worker_when_what_runs_there_has_ended_and_nothing_runs_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bus_worker, "ASSIGNMENT_SECONDS", 0.0)
    topics, first, second = Topics(), Gated(), Gated()
    second.opened.set()
    await topics.dispatch("a")
    async with working(topics, first) as worker:
        await first.called()
        async with working(topics, second) as other:
            await topics.dispatch("x", partition=1)
            await second.called()  # it has joined: every second partition is to be its
            await topics.dispatch("y", partition=4)
            await first.called()  # and that has been seen there
            await topics.dispatch("b")
            first.opened.set()
            assert [step_of(message) for message in await topics.results(2)] == ["a", "b"]
            assert (await second.called()).key == "t/b"
            await left(other)
            await left(worker)
    assert first.calls.empty() and second.calls.empty()
    assert await topics.committed() == 2


async def test_an_attempt_that_is_performed_twice_has_one_message_id() -> None:
    topics, tool = Topics(), Gated()
    tool.opened.set()
    for _ in range(2):
        await topics.dispatch("a")
    async with working(topics, tool):
        first, second = await topics.results(2)
    assert first.id == second.id


async def test_no_more_is_started_than_there_are_places() -> None:
    topics, tool = Topics(), Gated()
    for key in "abc":
        await topics.dispatch(key)
    async with working(topics, tool, capacity=1) as worker:
        await tool.called()
        assert tool.calls.empty()
        tool.opened.set()
        assert [step_of(message) for message in await topics.results(3)] == ["a", "b", "c"]
        await left(worker)
    assert await topics.committed() == 3


async def test_partitions_take_turns_when_there_is_more_to_do_than_places() -> None:
    topics, tool = Topics(), Gated()
    for key in "abc":
        await topics.dispatch(key)
    await topics.dispatch("d", partition=PARTITION + 1)
    tool.opened.set()
    async with working(topics, tool, capacity=1):
        assert [(await tool.called()).key for _ in range(4)] == ["t/a", "t/d", "t/b", "t/c"]


async def test_a_result_is_published_once_the_broker_is_back() -> None:
    topics, tool = Topics(), Gated()
    await topics.dispatch("a")
    async with working(topics, tool):
        await tool.called()
        topics.broker.away = True
        async with asyncio.timeout(SECONDS):
            await topics.broker.refused.wait()
        tool.opened.set()
        async with asyncio.timeout(SECONDS):
            await tool.ended.wait()
        topics.broker.away = False
        messages = await topics.results(1)
        assert {step_of(message) for message in messages} == {"a"}
