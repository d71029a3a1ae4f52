"""A worker against a server whose every word the test says, over real gRPC."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from kfm.catalogue.errors import Draining, InvalidArgument, ToolInvalid, Unauthenticated
from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb
from kfm_server.clock import Clock, SystemClock
from kfm_server.ports.attempt_refs import MOST_HELD
from kfm_server.ports.tools import Tool
from kfm_server.tools.registry import ToolRegistry
from kfm_server.worker.lease import Held
from kfm_server.worker.link import MOST_BEHIND
from kfm_server.worker.program import Worker, WorkerOptions
from xenocomm import errors as sdk

from tests.support.work_server import SECONDS, WorkServer, lease
from tests.unit.worker.gated import SCHEMA, Gated

pytestmark = pytest.mark.requirement("R10")

SUCCEEDED, FAILED = events.STEP_STATUS_SUCCEEDED, events.STEP_STATUS_FAILED
CANCELLED, UNKNOWN = events.STEP_STATUS_CANCELLED, events.STEP_STATUS_UNKNOWN


@pytest.fixture
async def server() -> AsyncIterator[WorkServer]:
    server = await WorkServer().start()
    yield server
    await server.stop()


@contextlib.asynccontextmanager
async def working(
    *tools: Tool,
    servers: tuple[WorkServer, ...],
    capacity: int = 4,
    token: str = "",
    clock: Clock | None = None,
) -> AsyncGenerator[Worker]:
    """A worker that keeps its streams until the block ends."""
    endpoints = tuple(server.endpoint for server in servers)
    options = WorkerOptions("gpu", "", endpoints, token=token, name="w1", capacity=capacity)
    async with asyncio.TaskGroup() as group:
        started: list[asyncio.Task[None]] = []

        def spawn(work: Any) -> asyncio.Task[None]:
            started.append(group.create_task(work))
            return started[-1]

        worker = Worker(options, ToolRegistry(tools), spawn, clock)
        spawn(worker.link.run())
        try:
            yield worker
        finally:
            for task in started:
                task.cancel()


async def ends_refused(server: WorkServer) -> BaseException:
    """What a worker ends with that the server refuses."""
    with pytest.raises(ExceptionGroup) as raised:
        async with working(Gated(), servers=(server,)):
            await asyncio.sleep(SECONDS)
    return raised.value.exceptions[0]


async def test_a_worker_says_who_it_is_and_what_its_tools_promise(server: WorkServer) -> None:
    async with working(Gated(), servers=(server,), token="t0ken-of-ours"):
        session = await server.session()
        hello = session.hello
        assert (hello.worker, hello.pool, hello.capacity, list(hello.running)) == ("w1", "gpu", 4, [])
        assert hello.instance and hello.schema_release and hello.program.startswith("kfm worker ")
        (tool,) = hello.tools
        assert (tool.name, tool.effect) == ("gated", types.EFFECT_CONTRACT_IDEMPOTENT)
        assert json.loads(tool.input_schema_json) == SCHEMA
        assert session.metadata["authorization"] == "Bearer t0ken-of-ours"


async def test_a_lease_is_performed_with_what_the_server_says_of_it(server: WorkServer) -> None:
    tool = Gated()
    tool.opened.set()
    async with working(tool, servers=(server,)):
        session = await server.session()
        ref = session.lease(lease("a", "gated", '{"n": 3}', tenant_id="acme", principal="ann"))
        call = await tool.called()
        assert (call.key, call.attempt, call.epoch) == ("t/a", 1, 7)
        assert (call.tenant_id, call.principal, call.connection) == ("acme", "ann", None)
        result = await session.hears("result")
        assert (result.ref, result.status) == (ref, SUCCEEDED)
        assert json.loads(result.output_json) == {"output": "done", "n": 3}
        assert result.HasField("run_time")


async def test_arguments_are_held_against_the_tools_schema(server: WorkServer) -> None:
    async with working(Gated(), servers=(server,)):
        session = await server.session()
        session.lease(lease("a", "gated", '{"n": "three"}'))
        result = await session.hears("result")
        assert (result.status, result.error.reason) == (FAILED, "REASON_TOOL_ARGUMENTS_INVALID")


async def test_progress_is_told_before_the_result(server: WorkServer) -> None:
    tool = Gated(says=("half", "nearly"))
    tool.opened.set()
    async with working(tool, servers=(server,)):
        session = await server.session()
        session.lease(lease("a", "gated"))
        told = [(await session.hears("delta")).progress for _ in range(2)]
        assert told == ["half", "nearly"]
        await session.hears("result")


async def test_progress_is_dropped_while_the_stream_is_behind(server: WorkServer) -> None:
    many = 10 * MOST_BEHIND
    tool = Gated(says=tuple(str(n) for n in range(many)))  # told at once: nothing is written in between
    tool.opened.set()
    async with working(tool, servers=(server,)):
        session = await server.session()
        session.lease(lease("a", "gated"))
        told = 0
        async with asyncio.timeout(SECONDS):
            while (await session.said.get()).WhichOneof("message") == "delta":
                told += 1
        assert 0 < told <= MOST_BEHIND + 1


async def test_heartbeats_name_all_that_is_held_until_it_is_acknowledged() -> None:
    server = await WorkServer(lease_seconds=0.1).start()
    tool = Gated()
    try:
        async with working(tool, servers=(server,)):
            session = await server.session()
            assert await session.hears_heartbeat() == []
            session.lease(lease("a", "gated"))
            await tool.called()
            while await session.hears_heartbeat() != ["a"]:
                pass
            tool.opened.set()
            result = await session.hears("result")
            await session.hears_heartbeat()
            assert await session.hears_heartbeat() == ["a"]  # its result is not acknowledged yet
            session.acknowledge(result.ref)
            while await session.hears_heartbeat():
                pass
    finally:
        await server.stop()


async def test_a_result_that_nobody_acknowledges_is_told_again() -> None:
    server = await WorkServer(lease_seconds=0.1).start()
    tool = Gated()
    tool.opened.set()
    try:
        async with working(tool, servers=(server,)):
            session = await server.session()
            session.lease(lease("a", "gated"))
            first, again = await session.hears("result"), await session.hears("result")
            assert first == again
            assert tool.calls.qsize() == 1
    finally:
        await server.stop()


async def test_what_is_beyond_the_capacity_or_unknown_is_declined(server: WorkServer) -> None:
    tool = Gated()
    async with working(tool, servers=(server,), capacity=1):
        session = await server.session()
        session.lease(lease("a", "gated"))
        await tool.called()
        session.lease(lease("b", "gated"))
        beyond = await session.hears("decline")
        assert (beyond.ref.step_key, "--capacity" in beyond.reason) == ("b", True)
        session.lease(lease("c", "other"))
        unknown = await session.hears("decline")
        assert (unknown.ref.step_key, "'other'" in unknown.reason) == ("c", True)
        tool.opened.set()
        assert (await session.hears("result")).ref.step_key == "a"
        session.lease(lease("d", "gated"))  # a place is free as soon as the result is told
        assert (await session.hears("result")).ref.step_key == "d"


async def test_no_more_is_held_than_a_hello_can_name(server: WorkServer) -> None:
    tool = Gated()
    tool.opened.set()
    async with working(tool, servers=(server,), capacity=MOST_HELD):
        session = await server.session()
        for number in range(MOST_HELD):
            session.lease(lease(f"s{number}", "gated"))
        refs = [(await session.hears("result")).ref for _ in range(MOST_HELD)]  # and none is acknowledged
        session.lease(lease("b", "gated"))
        assert str(MOST_HELD) in (await session.hears("decline")).reason
        session.end()
        session = await server.session()
        assert len(session.hello.running) == MOST_HELD
        session.acknowledge(refs[0])
        for _ in refs:
            await session.hears("result")
        session.lease(lease("b", "gated"))
        assert (await session.hears("result")).ref.step_key == "b"


async def test_a_lease_that_comes_twice_runs_once(server: WorkServer) -> None:
    tool = Gated()
    async with working(tool, servers=(server,)):
        session = await server.session()
        for _ in range(2):
            session.lease(lease("a", "gated"))
        await tool.called()
        tool.opened.set()
        await session.hears("result")
        session.lease(lease("b", "gated"))
        assert (await session.hears("result")).ref.step_key == "b"
        assert tool.calls.qsize() == 1  # that of b


async def test_a_cancelled_attempt_ends_and_says_so(server: WorkServer) -> None:
    tool = Gated()
    async with working(tool, servers=(server,)):
        session = await server.session()
        ref = session.lease(lease("a", "gated"))
        await tool.called()
        session.say(cancel=pb.Cancel(ref=ref, reason="the turn was cancelled"))
        result = await session.hears("result")
        assert (result.status, result.error.reason) == (CANCELLED, "REASON_CANCELLED")
        assert "the turn was cancelled" in result.error.message
        session.say(cancel=pb.Cancel(ref=ref))  # it has ended: passed over
        session.acknowledge(ref)
        session.lease(lease("a", "gated"))
        await tool.called()


async def test_what_is_cancelled_right_behind_its_lease_never_starts(server: WorkServer) -> None:
    tool = Gated()
    async with working(tool, servers=(server,)) as worker:
        session = await server.session()
        given = lease("a", "gated")
        worker.leases.take(given)
        worker.leases.cancel(given.ref, "changed its mind")
        assert (await session.hears("result")).status == CANCELLED
        assert tool.calls.empty()


async def test_an_attempt_ends_at_its_timeout_and_says_what_is_known(server: WorkServer) -> None:
    harmless, once = Gated(), Gated("once", types.EFFECT_CONTRACT_AT_MOST_ONCE)
    async with working(harmless, once, servers=(server,)):
        session = await server.session()
        session.lease(lease("a", "gated", timeout=0.05))
        result = await session.hears("result")
        assert (result.status, result.error.reason) == (FAILED, "REASON_STEP_TIMEOUT")
        assert result.error.retryable
        session.lease(lease("b", "once", timeout=0.05, effect=types.EFFECT_CONTRACT_AT_MOST_ONCE))
        assert (await session.hears("result")).status == UNKNOWN


@pytest.mark.parametrize("again", ["broken", "leaving", "ended"])
async def test_a_stream_that_goes_is_opened_again_and_cuts_nothing(server: WorkServer, again: str) -> None:
    running, ended = Gated(), Gated("ended")
    ended.opened.set()
    async with working(running, ended, servers=(server,)):
        session = await server.session()
        first = session.hello
        session.lease(lease("a", "gated"))
        await running.called()
        session.lease(lease("b", "ended"))
        await session.hears("result")  # and no acknowledgement
        if again == "leaving":
            session.say(leaving=pb.Leaving(reason="restart"))
        elif again == "ended":
            session.end()
        else:
            await server.stop()
            await server.start()
        session = await server.session()
        assert (session.hello.worker, session.hello.instance) == (first.worker, first.instance)
        assert {ref.step_key for ref in session.hello.running} == {"a", "b"}
        kept = await session.hears("result")
        assert (kept.ref.step_key, kept.status) == ("b", SUCCEEDED)
        session.acknowledge(kept.ref)
        running.opened.set()
        assert (await session.hears("result")).ref.step_key == "a"
        assert running.calls.empty() and ended.calls.qsize() == 1


async def test_what_ends_while_no_stream_stands_is_told_on_the_next(server: WorkServer) -> None:
    tool = Gated()
    async with working(tool, servers=(server,)):
        session = await server.session()
        session.lease(lease("a", "gated"))
        await tool.called()
        await server.stop()
        tool.opened.set()
        async with asyncio.timeout(SECONDS):
            await tool.ended.wait()
        await server.start()
        session = await server.session()
        assert [ref.step_key for ref in session.hello.running] == ["a"]
        assert (await session.hears("result")).status == SUCCEEDED


async def test_the_next_server_is_tried_when_one_goes_away(server: WorkServer) -> None:
    other = await WorkServer().start()
    tool = Gated()
    try:
        async with working(tool, servers=(server, other)):
            session = await server.session()
            session.lease(lease("a", "gated"))
            await tool.called()
            await server.stop()
            session = await other.session()
            assert [ref.step_key for ref in session.hello.running] == ["a"]
            tool.opened.set()
            assert (await session.hears("result")).status == SUCCEEDED
    finally:
        await other.stop()


async def test_a_server_that_is_away_or_draining_is_tried_again(server: WorkServer) -> None:
    await server.stop()
    async with working(Gated(), servers=(server,)):
        server.refusal = Draining()
        await server.start()
        async with asyncio.timeout(SECONDS):
            for _ in range(3):
                await server.hellos.acquire()
        server.refusal = None
        await server.session()


@pytest.mark.parametrize(
    ("refusal", "raised"),
    [
        (ToolInvalid("the name is taken"), sdk.ToolInvalid),
        (Unauthenticated("no"), sdk.Unauthenticated),
        (InvalidArgument("hello.pool: no"), sdk.InvalidArgument),
    ],
)
async def test_a_refused_hello_ends_the_worker_with_its_error(
    server: WorkServer, refusal: Any, raised: type[BaseException]
) -> None:
    server.refusal = refusal
    ended = await ends_refused(server)
    assert isinstance(ended, raised) and refusal.message in str(ended)


async def test_a_refusal_that_met_the_hello_and_was_lost_is_heard_on_the_next_stream(
    server: WorkServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.unsaid, server.refusal = 1, Unauthenticated("no")
    ended = await ends_refused(server)
    assert isinstance(ended, sdk.Unauthenticated)
    assert server.streams == 2
    assert "INTERNAL" not in capsys.readouterr().out


async def test_a_server_that_takes_the_worker_after_a_lost_refusal_gets_its_hello(server: WorkServer) -> None:
    server.unsaid = 1
    async with working(Gated(), servers=(server,)):
        assert (await server.session()).hello.worker == "w1"


async def test_a_result_that_the_server_cannot_take_is_told_as_a_failure() -> None:
    server = await WorkServer(max_message_bytes=10_000).start()
    tool = Gated(output="x" * 10_000)
    tool.opened.set()
    try:
        async with working(tool, servers=(server,)):
            session = await server.session()
            session.lease(lease("a", "gated"))
            result = await session.hears("result")
            assert (result.status, result.error.reason) == (FAILED, "REASON_PAYLOAD_TOO_LARGE")
            assert "max_message_bytes=10000" in result.error.message
    finally:
        await server.stop()


class Woken(SystemClock):
    """The machine's clocks, after the process slept for a while right behind the arrival of a lease."""

    def __init__(self, wall: float, steady: float) -> None:
        self.jumps = (wall, steady)
        self.looks = 0

    def now_us(self) -> int:
        """Wall time."""
        now = super().now_us() + (int(self.jumps[0] * 1e6) if self.arrived else 0)
        self.looks += 1
        return now

    @property
    def arrived(self) -> bool:
        """It looked when it said hello, and when the lease came."""
        return self.looks >= 2

    def monotonic(self) -> float:
        """Steady time."""
        return super().monotonic() + (self.jumps[1] if self.arrived else 0.0)


@pytest.mark.requirement("R6")
@pytest.mark.parametrize(("wall", "steady"), [(20.0, 20.0), (0.0, 20.0), (20.0, 0.0), (-3600.0, 20.0)])
async def test_what_wakes_too_late_by_either_clock_starts_nothing(
    server: WorkServer, wall: float, steady: float
) -> None:
    tool = Gated()
    async with working(tool, servers=(server,), clock=Woken(wall, steady)):
        session = await server.session()
        session.lease(lease("a", "gated", start_within=10.0))
        result = await session.hears("result")
        assert (result.status, result.error.reason) == (FAILED, "REASON_FENCED")
        assert result.error.retryable and tool.calls.empty()


async def test_the_latest_start_by_the_servers_clock_counts_too(server: WorkServer) -> None:
    tool, clock = Gated(effect=types.EFFECT_CONTRACT_PURE), SystemClock()
    async with working(tool, servers=(server,)):
        session = await server.session()
        late = lease("a", "gated", start_within=10.0, effect=types.EFFECT_CONTRACT_PURE)
        late.start_by.FromMicroseconds(clock.now_us() - 1_000_000)
        session.lease(late)
        result = await session.hears("result")
        assert (result.status, result.error.reason) == (FAILED, "REASON_FENCED")
        assert "clock" in result.error.message and tool.calls.empty()


async def test_a_worker_whose_clock_is_wrong_goes_by_the_servers(server: WorkServer) -> None:
    tool = Gated(effect=types.EFFECT_CONTRACT_PURE)
    tool.opened.set()
    hours = 3_600_000_000
    server.welcome.now.FromMicroseconds(SystemClock().now_us() - hours)
    async with working(tool, servers=(server,)):
        session = await server.session()
        given = lease("a", "gated", start_within=10.0, effect=types.EFFECT_CONTRACT_PURE)
        given.start_by.FromMicroseconds(SystemClock().now_us() - hours + 10_000_000)
        session.lease(given)
        assert (await session.hears("result")).status == SUCCEEDED


class Set(SystemClock):
    """A wall clock that a person sets."""

    ahead = 0.0

    def now_us(self) -> int:
        """Wall time."""
        return super().now_us() + int(self.ahead * 1e6)


async def test_a_worker_whose_clock_is_set_while_it_works_asks_for_the_servers_again() -> None:
    server, clock = await WorkServer(lease_seconds=0.3).start(), Set()
    server.welcome.now.FromMicroseconds(SystemClock().now_us())
    tool = Gated(effect=types.EFFECT_CONTRACT_PURE)
    tool.opened.set()
    try:
        async with working(tool, servers=(server,), clock=clock):
            await (await server.session()).hears_heartbeat()  # it has heard the welcome
            clock.ahead = 3600.0
            server.welcome.now.FromMicroseconds(SystemClock().now_us())
            session = await server.session()
            given = lease("a", "gated", start_within=10.0, effect=types.EFFECT_CONTRACT_PURE)
            given.start_by.FromMicroseconds(SystemClock().now_us() + 10_000_000)
            session.lease(given)
            assert (await session.hears("result")).status == SUCCEEDED
    finally:
        await server.stop()


def test_a_lease_in_time_is_not_late() -> None:
    clock = SystemClock()
    held = Held(lease("a", "gated"), clock.monotonic(), clock.now_us())
    assert held.why_late(clock) == ""
    assert held.attempt().deadline_us - held.attempt().start_by_us == 30_000_000


async def test_a_worker_that_leaves_takes_no_more_and_tells_what_it_did(server: WorkServer) -> None:
    tool = Gated()
    async with working(tool, servers=(server,)) as worker:
        session = await server.session()
        session.lease(lease("a", "gated"))
        await tool.called()
        worker.leases.leave()
        assert (await session.hears("capacity")).capacity == 0
        session.lease(lease("b", "gated"))
        assert (await session.hears("decline")).reason == "this worker is leaving"
        assert not worker.leases.empty.is_set()
        tool.opened.set()
        result = await session.hears("result")
        session.acknowledge(result.ref)
        async with asyncio.timeout(SECONDS):
            await worker.leases.empty.wait()


async def test_what_a_leaving_worker_cuts_off_is_told_by_its_contract(server: WorkServer) -> None:
    harmless, once = Gated(), Gated("once", types.EFFECT_CONTRACT_AT_MOST_ONCE)
    async with working(harmless, once, servers=(server,)) as worker:
        session = await server.session()
        session.lease(lease("a", "gated"))
        session.lease(lease("b", "once", effect=types.EFFECT_CONTRACT_AT_MOST_ONCE))
        await harmless.called()
        await once.called()
        worker.leases.give_up()
        told = [await session.hears("result") for _ in range(2)]
        assert {r.ref.step_key: (r.status, r.error.retryable) for r in told} == {
            "a": (FAILED, True),
            "b": (UNKNOWN, True),
        }


def test_what_every_server_would_refuse_is_refused_before_the_first_stream() -> None:
    options = WorkerOptions("LOCAL", "", ("127.0.0.1:1",))
    with pytest.raises(sdk.InvalidArgument, match="pool") as raised:
        Worker(options, ToolRegistry([Gated()]), asyncio.create_task)
    assert [v.field for v in raised.value.violations] == ["pool"]
