"""WorkerService over a real channel, with workers that do not keep to it: typed errors, and the server stays up."""

import asyncio
import contextlib
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.duration_pb2 import Duration
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb
from kfm.worker.v1 import worker_service_pb2_grpc as rpc
from xenocomm import Client
from xenocomm._gen.types import Outcome, StepResultEvent

from tests.support.live import LiveServer
from tests.support.plans import call, given, started, until
from tests.support.refusals import Refused, refusal

pytestmark = [pytest.mark.requirement("R10", "E1", "E2"), pytest.mark.timeout(180)]
SECONDS = 30.0
TOKEN = "s3cret"
BEARER = (("authorization", f"Bearer {TOKEN}"),)
IDEMPOTENT = types.EFFECT_CONTRACT_IDEMPOTENT
ONCE = types.EFFECT_CONTRACT_AT_MOST_ONCE


@pytest.fixture(scope="module")
def server(module_database: str) -> Generator[LiveServer]:
    """A server that asks for a token, with tools of its own."""
    home = Path(tempfile.mkdtemp(prefix="kfm-worker-door-"))
    home.chmod(0o755)
    server = LiveServer(
        home,
        tools="tests.support.ledger:TOOLS",
        database_url=module_database,
        environment={"LEDGER_FILE": str(home / "ledger.jsonl"), "KFM_TOKEN": TOKEN},
    )
    try:
        server.start()
        yield server
        assert server.process is not None and server.process.poll() is None, server.log_tail()
        log = (home / "server.log").read_text()
        assert "Traceback" not in log, log[-4000:]
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def client(server: LiveServer) -> AsyncIterator[Client]:
    async with Client(server.grpc, token=TOKEN, timeout=SECONDS) as client:
        yield client


class Stream:
    """One stream, of which the test writes every message."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.holds: list[pb.AttemptRef] = []
        self.writing = asyncio.Lock()
        self.over = asyncio.Event()

    async def say(self, **message: Any) -> None:
        """Send one request."""
        async with self.writing:
            await self.call.write(pb.WorkRequest(**message))

    async def beat(self) -> None:
        """Go on beating until cancelled."""
        while True:
            await self.say(heartbeat=pb.Heartbeat(running=self.holds))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self.over.wait()

    async def hears(self, kind: str) -> Any:
        """The next response of this kind."""
        async with asyncio.timeout(SECONDS):
            while (said := await self.call.read()) is not grpc.aio.EOF:  # pyright: ignore[reportAttributeAccessIssue]
                if said.WhichOneof("message") == kind:
                    return getattr(said, kind)
        raise AssertionError(f"the stream ended without {kind}: {await self.call.details()}")

    async def refused(self) -> Refused:
        """How the server ended it."""
        async with asyncio.timeout(SECONDS):
            with pytest.raises(grpc.aio.AioRpcError) as told:
                while await self.call.read() is not grpc.aio.EOF:  # pyright: ignore[reportAttributeAccessIssue]
                    pass
        return refusal(told.value)


@asynccontextmanager
async def stream(server: LiveServer, metadata: Any = BEARER) -> AsyncGenerator[Stream]:
    """A stream that nothing was said on."""
    own = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", 64 << 20)]
    async with grpc.aio.insecure_channel(server.grpc, options=own) as channel:
        opened = rpc.WorkerServiceStub(channel).Work(metadata=metadata)
        yield Stream(opened)
        opened.cancel()


def hello(name: str = "w", pool: str = "hostile", **fields: Any) -> pb.Hello:
    """A good hello, but for what is given."""
    return pb.Hello(**({"worker": name, "pool": pool, "capacity": 2, "instance": "i1"} | fields))


def tool(name: str = "strange", **fields: Any) -> pb.ToolDefinition:
    """A good tool, but for what is given."""
    good: dict[str, Any] = {
        "description": "Strange.",
        "input_schema_json": '{"type": "object"}',
        "effect": IDEMPOTENT,
    }
    return pb.ToolDefinition(name=name, **(good | fields))


@asynccontextmanager
async def working(server: LiveServer, said: pb.Hello) -> AsyncGenerator[Stream]:
    """A worker that was welcomed, and beats."""
    async with stream(server) as opened:
        await opened.say(hello=said)
        await opened.hears("welcome")
        beating = asyncio.create_task(opened.beat())
        try:
            yield opened
        finally:
            beating.cancel()
            await asyncio.wait((beating,))


async def refused(server: LiveServer, **message: Any) -> Refused:
    """What a first message comes to."""
    async with stream(server) as opened:
        await opened.say(**message)
        return await opened.refused()


INVALID = grpc.StatusCode.INVALID_ARGUMENT


# Who comes in


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer wrong"),)], ids=["none", "wrong"])
async def test_a_worker_needs_the_token(server: LiveServer, metadata: Any) -> None:
    async with stream(server, metadata) as opened:
        # Says nothing: a write that meets the refusal would have grpc.aio report its own failure, INTERNAL, instead.
        assert (await opened.refused()).code == grpc.StatusCode.UNAUTHENTICATED


async def test_the_first_message_is_a_hello(server: LiveServer) -> None:
    assert (await refused(server, heartbeat=pb.Heartbeat())).code == INVALID
    assert (await refused(server)).code == INVALID
    async with stream(server) as opened:
        await opened.call.done_writing()
        assert await opened.refused() == Refused(INVALID, "REASON_INVALID_ARGUMENT", "", 0)


@pytest.mark.parametrize(
    "said",
    [
        hello(pool="local"),
        hello(pool=""),
        hello(pool="GPU"),
        hello(pool="9x"),
        hello(pool="a b"),
        hello(pool="a" * 64),
        hello(pool="gpu\n"),
        hello(name=""),
        hello(name="x" * 129),
        hello(capacity=1001),
        hello(instance="x" * 129),
        hello(program="x" * 201),
        hello(running=[pb.AttemptRef(turn_id=f"t{n}") for n in range(1001)]),
        hello(tools=[tool(f"t{n}") for n in range(257)]),
        hello(tools=[tool("No")]),
        hello(tools=[tool("x" * 65)]),
        hello(tools=[tool(input_schema_json="")]),
        hello(tools=[tool(input_schema_json="x" * 65537)]),
    ],
    ids=lambda said: str(said)[:30].replace("\n", " "),
)
async def test_a_hello_that_breaks_a_rule_of_the_schema_is_refused(
    server: LiveServer, said: pb.Hello
) -> None:
    assert await refused(server, hello=said) == Refused(INVALID, "REASON_INVALID_ARGUMENT", "", 0)


@pytest.mark.parametrize(
    "bad",
    [
        tool(effect=types.EFFECT_CONTRACT_TRANSACTIONAL),
        tool(description=""),
        tool(input_schema_json="{}}"),
        tool(input_schema_json="[]"),
        tool(input_schema_json='{"type": 5}'),
        tool(input_schema_json='{"$ref": "http://127.0.0.1:9/schema"}'),
        tool(input_schema_json="[" * 65000),
        tool(effect=types.EFFECT_CONTRACT_COMPENSATABLE),
        tool(effect=types.EFFECT_CONTRACT_COMPENSATABLE, compensation_tool="nowhere"),
        tool("ledger_once"),
    ],
    ids=[
        "transactional", "no-description", "no-json", "no-object", "no-schema", "remote-schema", "deep-schema",
        "no-compensation", "unknown-compensation", "a-tool-of-the-server",
    ],
)  # fmt: skip
async def test_a_tool_that_cannot_be_offered_refuses_its_worker(
    server: LiveServer, client: Client, bad: pb.ToolDefinition
) -> None:
    told = await refused(server, hello=hello(tools=[tool("harmless"), bad]))
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "REASON_TOOL_INVALID")
    turn = await client.turns.start(given(call("a", "ledger_once")))
    assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED


# What it says


async def test_a_second_hello_ends_the_stream(server: LiveServer) -> None:
    async with working(server, hello()) as worker:
        await worker.say(hello=hello())
        assert await worker.refused() == Refused(INVALID, "REASON_INVALID_ARGUMENT", "", 0)


async def test_a_heartbeat_with_more_than_a_worker_may_hold_ends_the_stream(server: LiveServer) -> None:
    async with working(server, hello()) as worker:
        await worker.say(
            heartbeat=pb.Heartbeat(running=[pb.AttemptRef(turn_id=f"t{n}") for n in range(1001)])
        )
        with pytest.raises(grpc.aio.AioRpcError, match="no field may have more than 1000"):
            while await worker.call.read() is not grpc.aio.EOF:  # pyright: ignore[reportAttributeAccessIssue]
                pass


async def test_what_breaks_a_rule_of_the_schema_ends_the_stream(server: LiveServer) -> None:
    ref = pb.AttemptRef(turn_id="t", step_key="s", attempt=1)
    for message in (
        {"delta": pb.LeaseDelta(ref=ref, progress="x" * 16385)},
        {"decline": pb.Decline(ref=ref, reason="x" * 1025)},
        {"capacity": pb.Capacity(capacity=1001)},
    ):
        async with working(server, hello()) as worker:
            await worker.say(**message)
            assert (await worker.refused()).code == INVALID


async def test_a_message_that_is_too_large_or_none_ends_the_stream(server: LiveServer) -> None:
    async with working(server, hello()) as worker:
        await worker.say(result=pb.LeaseResult(output_json="x" * (5 << 20)))
        assert (await worker.refused()).reason == "REASON_PAYLOAD_TOO_LARGE"
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        raw = channel.stream_stream("/kfm.worker.v1.WorkerService/Work")(metadata=BEARER)
        await raw.write(b"\xff\xff\xff\xff")
        assert (await Stream(raw).refused()).reason == "REASON_MALFORMED_REQUEST"


async def test_what_a_newer_worker_says_is_passed_over(server: LiveServer) -> None:
    async with working(server, hello()) as worker:
        await worker.say()
        await worker.say(heartbeat=pb.Heartbeat())
        await worker.say(hello=hello())
        assert (await worker.refused()).code == INVALID  # it had got so far


@asynccontextmanager
async def a_lease(
    server: LiveServer, client: Client, pool: str
) -> AsyncGenerator[tuple[Any, Stream, pb.Lease]]:
    """A turn whose one step a worker of the pool was leased: at most once."""
    name = f"{pool}_once"
    async with working(server, hello("honest", pool, tools=[tool(name, effect=ONCE)])) as worker:
        turn = await client.turns.start(given(call("a", name)))
        lease = await worker.hears("lease")
        worker.holds = [lease.ref]
        yield turn, worker, lease


async def test_results_of_attempts_that_it_was_not_leased_do_not_count(
    server: LiveServer, client: Client
) -> None:
    async with (
        a_lease(server, client, "mine") as (turn, worker, lease),
        working(server, hello("thief", "mine")) as thief,
        working(server, hello("stranger", "other")) as stranger,
    ):
        stolen = pb.LeaseResult(ref=lease.ref, status=ev.STEP_STATUS_SUCCEEDED, output_json='"stolen"')
        for other in (thief, stranger):
            await other.say(heartbeat=pb.Heartbeat(running=[lease.ref]))
            await other.say(decline=pb.Decline(ref=lease.ref))
            await other.say(heartbeat=pb.Heartbeat(running=[lease.ref]))
            await other.say(result=stolen)
            other.holds = [lease.ref]
        for n in range(50):
            ref = pb.AttemptRef(session_id="ses", turn_id=f"turn_{n}", step_key="a", attempt=n)
            await thief.say(result=pb.LeaseResult(ref=ref, status=ev.STEP_STATUS_SUCCEEDED, output_json="1"))
        assert not (await thief.hears("ack")).accepted
        assert not (await stranger.hears("ack")).accepted
        await worker.say(
            result=pb.LeaseResult(ref=lease.ref, status=ev.STEP_STATUS_SUCCEEDED, output_json='"done"')
        )
        assert (await worker.hears("ack")).accepted
        done = await turn.result(timeout=SECONDS)
        assert done.outcome == Outcome.SUCCEEDED
        assert "done" in str(done.output)


@pytest.mark.parametrize(
    "told",
    [
        pb.LeaseResult(status=ev.STEP_STATUS_SUCCEEDED, output_json="{not json"),
        pb.LeaseResult(status=ev.STEP_STATUS_SUCCEEDED, output_json=""),
        pb.LeaseResult(status=ev.STEP_STATUS_SUCCEEDED, output_json="[" * 100_000 + "]" * 100_000),
        pb.LeaseResult(status=99, output_json="1"),  # type: ignore[arg-type]
        pb.LeaseResult(),
        pb.LeaseResult(status=ev.STEP_STATUS_FAILED, error=types.Error(reason="nonsense", message="\0\x1b[31m" * 9000)),
        pb.LeaseResult(
            status=ev.STEP_STATUS_FAILED,
            error=types.Error(reason="REASON_TOOL_FAILED", metadata={f"\0{n}": "x" * 5000 for n in range(100)}),
        ),
    ],
    ids=["no-json", "empty", "deep", "unknown-status", "nothing", "nonsense", "much-metadata"],
)  # fmt: skip
async def test_a_result_that_cannot_be_kept_is_a_failure(
    server: LiveServer, client: Client, told: pb.LeaseResult
) -> None:
    async with a_lease(server, client, "mad") as (turn, worker, lease):
        told = pb.LeaseResult.FromString(told.SerializeToString())
        told.ref.CopyFrom(lease.ref)
        await worker.say(result=told)
        assert (await worker.hears("ack")).accepted
        done = await turn.result(timeout=SECONDS, check=False)
        assert done.outcome == Outcome.FAILED
        assert done.error is not None and len(json.dumps(done.error.message)) < 20_000


async def test_times_that_no_clock_shows_are_cut(server: LiveServer, client: Client) -> None:
    for run_time in (Duration(seconds=2**63 - 1, nanos=2**31 - 1), Duration(seconds=-(2**63), nanos=-5)):
        async with a_lease(server, client, "timeless") as (turn, worker, lease):
            told = pb.LeaseResult(
                ref=lease.ref, status=ev.STEP_STATUS_SUCCEEDED, output_json="1", run_time=run_time
            )
            await worker.say(result=told)
            assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED
            (result,) = [
                e.event for e in [e async for e in turn.events()] if isinstance(e.event, StepResultEvent)
            ]
            assert "run_time" in repr(result)
            assert server.process is not None and server.process.poll() is None


async def test_output_that_is_no_text_for_a_terminal_is_told_clean(
    server: LiveServer, client: Client
) -> None:
    async with a_lease(server, client, "loud") as (turn, worker, lease):
        seen = asyncio.create_task(until(turn, started("a")))
        for _ in range(500):
            await worker.say(delta=pb.LeaseDelta(ref=lease.ref, progress="\x1b[31m\0" * 100))
        await seen
        await worker.say(
            result=pb.LeaseResult(ref=lease.ref, status=ev.STEP_STATUS_SUCCEEDED, output_json='"\\u0000"')
        )
        assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED


# How much it says


async def test_a_flood_of_heartbeats_and_declines_keeps_nobody_from_being_served(
    server: LiveServer, client: Client
) -> None:
    name = "flooded_once"
    async with working(server, hello("flood", "flooded", tools=[tool(name, effect=ONCE)])) as flood:
        turn = await client.turns.start(given(call("a", name)))
        lease = await flood.hears("lease")
        for _ in range(3000):
            await flood.say(decline=pb.Decline(ref=lease.ref))
            await flood.say(heartbeat=pb.Heartbeat())
        async with working(server, hello("honest", "flooded")) as honest:
            other = await client.turns.start(given(call("a", "ledger_once")))
            assert (await other.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED
            await flood.say(capacity=pb.Capacity(capacity=0))
            await flood.say(decline=pb.Decline(ref=lease.ref))
            taken = await honest.hears("lease")
            await honest.say(
                result=pb.LeaseResult(ref=taken.ref, status=ev.STEP_STATUS_SUCCEEDED, output_json="1")
            )
            assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED


async def test_a_worker_that_reads_nothing_and_tells_much_costs_the_server_little(
    server: LiveServer, client: Client
) -> None:
    output = '"' + "x" * 100_000 + '"'
    async with working(server, hello("deaf", "deaf")) as deaf:
        before = server.gauge("process_resident_memory_bytes")
        for n in range(6000):
            ref = pb.AttemptRef(session_id="ses", turn_id=f"turn_{n}", step_key="a", attempt=1)
            await deaf.say(
                result=pb.LeaseResult(ref=ref, status=ev.STEP_STATUS_SUCCEEDED, output_json=output)
            )
        grown = server.gauge("process_resident_memory_bytes") - before
        assert grown < 500 << 20  # 600 MB were told; what is on the way takes up to 400, however much is told
        turn = await client.turns.start(given(call("a", "ledger_once")))
        assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED


async def test_many_streams_of_one_name_are_one_worker(server: LiveServer, client: Client) -> None:
    async with stream(server) as first, stream(server) as second:
        await first.say(hello=hello("twin", "twins"))
        await first.hears("welcome")
        await second.say(hello=hello("twin", "twins"))
        await second.hears("welcome")
        await first.hears("leaving")
        listed = (await client.server.workers("twins")).workers
        assert [w.worker for w in listed] == ["twin"]


# What is known of it


async def test_reflection_shows_the_service_with_its_comments(server: LiveServer) -> None:
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="kfm.worker.v1.WorkerService"),
        ]
        answers = [a async for a in ask(iter(requests), metadata=BEARER)]
    assert "kfm.worker.v1.WorkerService" in {s.name for s in answers[0].list_services_response.service}
    raw = answers[1].file_descriptor_response.file_descriptor_proto
    files = [descriptor_pb2.FileDescriptorProto.FromString(f) for f in raw]
    (file,) = [f for f in files if f.name.endswith("worker_service.proto")]
    (method,) = file.service[0].method
    assert (method.name, method.client_streaming, method.server_streaming) == ("Work", True, True)
    comments = {tuple(p.path): p.leading_comments for p in file.source_code_info.location}
    assert comments[(6, 0, 2, 0)].strip().startswith("Work")
