"""Three times what the door takes (FT16), on a real server with small limits: the rest is refused at once, in a typed way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import psutil
import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as pb
from kfm.turn.v1 import turn_service_pb2_grpc as rpc
from kfm.type.v1 import type_pb2 as types

from tests.support.live import LiveServer
from tests.support.plans import Gate, call, document
from tests.support.refusals import Refused, refusal

pytestmark = pytest.mark.requirement("E1", "FT16")

CALLS, STREAMS = 4, 8
AT_ONCE_SECONDS = 10.0
"""Far below every deadline and wait of the server: whoever answers within it was not kept waiting for work."""


@pytest.fixture(scope="module")
def server(postgres_home: Path) -> Generator[LiveServer]:
    """A server that takes four calls and eight streams at a time."""
    home = postgres_home / "overload"
    limits = {"KFM_MAX_IN_FLIGHT": str(CALLS), "KFM_MAX_STREAMS": str(STREAMS)}
    server = LiveServer(
        home,
        tools="tests.support.ledger:TOOLS",
        environment={"LEDGER_FILE": str(home / "ledger")} | limits,
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
async def stub(server: LiveServer) -> AsyncIterator[Any]:
    """A raw stub: it retries nothing."""
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        yield rpc.TurnServiceStub(channel)


def spec(*steps: dict[str, Any], session: str = "") -> api.TurnSpec:
    return api.TurnSpec(input=[types.Part(data_json=document(*steps))], session_id=session)


async def sort(calls: list[asyncio.Task[Any]], refused: int) -> tuple[list[asyncio.Task[Any]], list[Refused]]:
    """Wait until so many calls were refused; the others, and what the refused were told."""
    left, told = set(calls), list[Refused]()
    async with asyncio.timeout(AT_ONCE_SECONDS):
        while len(told) < refused:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            told += [refusal(task.exception()) for task in done]
    return list(left), told


@contextmanager
def frozen_database(server: LiveServer) -> Generator[None]:
    """Nothing is committed inside: whoever was let in stays in."""
    assert server.process is not None
    found = psutil.Process(server.process.pid).children(recursive=True)
    with ExitStack() as stack:
        for process in found:
            process.suspend()
            stack.callback(process.resume)
        yield


async def run(
    stub: Any, key: str, turn: api.TurnSpec, entering: asyncio.Semaphore | None = None
) -> "ev.Outcome":
    """Run a turn to its end; the outcome. With a semaphore, only so many are on their way in at a time."""
    async with entering or nullcontext():
        running = stub.RunTurn(pb.RunTurnRequest(turn=turn, idempotency_key=key), timeout=60)
        response = await running.read()
    outcome = ev.OUTCOME_UNSPECIFIED
    while isinstance(response, pb.RunTurnResponse):
        for update in response.updates:
            if update.event.type == "TurnStateEvent.v1":
                outcome = ev.TurnStateEvent.FromString(update.event.payload.value).outcome
        response = await running.read()
    return outcome


async def served_at_once(stub: Any) -> None:
    """The server takes new work, and ends it."""
    async with asyncio.timeout(AT_ONCE_SECONDS):
        assert await run(stub, uuid4().hex, spec(call("a", "ledger_pure"))) == ev.OUTCOME_SUCCEEDED


Start = Callable[[Any, int], Awaitable[Any]]


def submit(stub: Any, number: int) -> Awaitable[Any]:
    turn = spec(call("a", "ledger_pure"))
    return stub.SubmitTurn(pb.SubmitTurnRequest(turn=turn, idempotency_key=f"s{number}"), timeout=60)


def run_pure(stub: Any, number: int) -> Awaitable[Any]:
    return run(stub, f"r{number}", spec(call("a", "ledger_pure")))


@pytest.mark.parametrize("start", [submit, run_pure])
async def test_calls_beyond_the_limit_are_refused_while_the_database_stands_still(
    server: LiveServer, stub: Any, start: Start
) -> None:
    async def one(number: int) -> Any:
        return await start(stub, number)

    with frozen_database(server):
        calls = [asyncio.create_task(one(n), name=f"call {n}") for n in range(3 * CALLS)]
        accepted, told = await sort(calls, 2 * CALLS)
        assert await asyncio.to_thread(server.gauge, "kfm_calls_in_flight") == CALLS
    assert told == [
        Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "REASON_OVERLOADED", "max_in_flight", 250)
    ] * (2 * CALLS)
    async with asyncio.timeout(AT_ONCE_SECONDS):
        assert len(await asyncio.gather(*accepted)) == CALLS
    await served_at_once(stub)
    await asyncio.to_thread(server.await_gauge, "kfm_calls_in_flight", 0)


async def test_streams_beyond_the_limit_are_refused_and_those_let_in_are_served_to_their_end(
    server: LiveServer, stub: Any, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    held = spec(call("a", "ledger_once", hold=gate.hold))

    # So that only the streams are too many.
    entering = asyncio.Semaphore(CALLS)
    calls = [
        asyncio.create_task(run(stub, f"k{n}", held, entering), name=f"stream {n}")
        for n in range(3 * STREAMS)
    ]
    accepted, told = await sort(calls, 2 * STREAMS)
    assert await asyncio.to_thread(server.gauge, "kfm_streams") == STREAMS
    assert told == [
        Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "REASON_TOO_MANY_STREAMS", "max_streams", 1000)
    ] * (2 * STREAMS)
    gate.open()
    async with asyncio.timeout(AT_ONCE_SECONDS):
        assert await asyncio.gather(*accepted) == [ev.OUTCOME_SUCCEEDED] * STREAMS
    await served_at_once(stub)
    await asyncio.to_thread(server.await_gauge, "kfm_streams", 0)
