"""Xenocomm against a real gRPC server: handles, re-attach, typed errors, retries, deadlines."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import xenocomm
from kfm.catalogue.errors import Draining, Overloaded, Unavailable
from kfm.event.v1 import turn_events_pb2
from xenocomm import (
    BusyMode,
    Client,
    ConnectFailed,
    Outcome,
    Part,
    ResultTimeout,
    Turn,
    TurnCancelled,
    TurnFailed,
    TurnNeedsPerson,
    TurnState,
    TurnTimedOut,
    errors,
)
from xenocomm._gen.types import Error, PlanStep, Step, StepState, WaitReason
from xenocomm.failures import check_outcome

from tests.e2e.toy_door import Running, toy_door
from tests.e2e.toy_turns import ToyTurns

pytestmark = pytest.mark.requirement("E5")


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with toy_door() as running:
        yield running


@pytest.fixture
async def kfm(server: Running) -> AsyncIterator[Client]:
    async with Client(server.grpc, timeout=5) as client:
        yield client


@pytest.mark.parametrize("batch", [1, 2, 10])
@pytest.mark.parametrize("watch", [False, True])
async def test_a_started_turn_tells_every_event_once_and_ends(
    server: Running, kfm: Client, watch: bool, batch: int
) -> None:
    server.turns.batch = batch
    turn = await kfm.turns.start(["hello", Part(data_json="[1]")], watch=watch)
    events = [e async for e in turn.events()]
    assert [e.sequence for e in events] == [1, 2, 3]
    assert isinstance(events[-1].event, type(events[1].event))
    assert [e.sequence async for e in turn.events(after=1)] == [2, 3]
    assert "".join([t async for t in turn.text()]) == "hello"
    result = await turn.result()
    assert result.outcome == Outcome.SUCCEEDED
    assert result.output[0].text == "hello"


async def test_a_reader_reattaches_by_sequence_after_the_stream_breaks(server: Running, kfm: Client) -> None:
    server.turns.cut_after = 1
    turn = await kfm.turns.start("wait")
    seen: list[int] = []
    server.turns.cuts = [Unavailable(), Draining(retry_after_ms=1)]
    async for event in turn.events(timeout=20):
        seen.append(event.sequence)
        if event.sequence == 1:
            await server.turns.finish(turn.id)
    assert seen == [1, 2, 3]
    assert server.turns.watches == [0, 1, 2]


async def test_a_reader_survives_a_server_that_drains_and_comes_back_on_its_address() -> None:
    turns = ToyTurns()
    async with toy_door(turns=turns) as first:
        client = Client(first.grpc, timeout=10)
        turn = await client.turns.start("wait", watch=True)
        seen: list[int] = []
        reached = asyncio.Event()

        async def read() -> None:
            async for event in turn.events(timeout=30):
                seen.append(event.sequence)
                reached.set()

        async with asyncio.TaskGroup() as group:
            reader = group.create_task(read())
            await reached.wait()
            await first.door.drain(5)
            await first.door.stop(0)
            async with toy_door(turns=turns, address=first.grpc):
                await turns.finish(turn.id)
                async with asyncio.timeout(30):
                    await reader
        assert seen == [1, 2, 3]
        await client.close()


async def test_retries_send_the_same_key_so_that_one_turn_comes_of_it(server: Running, kfm: Client) -> None:
    server.turns.fail = [Unavailable(), Overloaded(retry_after_ms=20)]
    turn = await kfm.turns.start("hello")
    assert list(server.turns.turns) == [turn.id]
    server.turns.fail = [Draining()]
    watched = await kfm.turns.start("hello again", watch=True)
    assert len(server.turns.turns) == 2
    assert [e.sequence async for e in watched.events()] == [1, 2, 3]


async def test_the_callers_own_key_joins_the_turn_and_another_body_is_a_conflict(kfm: Client) -> None:
    first = await kfm.turns.start("a", idempotency_key="mine")
    assert (await kfm.turns.start("a", idempotency_key="mine")).id == first.id
    with pytest.raises(errors.IdempotencyConflict):
        await kfm.turns.start("b", idempotency_key="mine")


async def test_errors_are_typed_and_name_fields(kfm: Client) -> None:
    with pytest.raises(errors.TurnNotFound) as missing:
        await kfm.turns.get("turn_nope")
    assert missing.value.exit_code == 3
    with pytest.raises(errors.InvalidArgument) as wrong:
        await kfm.turns.start("x", session_id="not a session")
    assert wrong.value.violations[0].field == "turn.session_id"
    assert wrong.value.violations[0].rule == "string.pattern"


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        ("OUTCOME_FAILED", TurnFailed),
        ("OUTCOME_CANCELLED", TurnCancelled),
        ("OUTCOME_TIMED_OUT", TurnTimedOut),
    ],
)
async def test_a_result_that_is_no_success_is_a_typed_failure_with_the_turn(
    server: Running, kfm: Client, outcome: str, expected: type[Exception]
) -> None:
    turn = await kfm.turns.start("wait")
    await server.turns.finish(turn.id, turn_events_pb2.Outcome.Value(outcome))
    with pytest.raises(expected) as failure:
        await turn.result()
    assert failure.value.turn.turn_id == turn.id  # type: ignore[attr-defined]
    assert (await turn.result(check=False)).turn_id == turn.id


async def test_a_result_waits_no_longer_than_asked_and_the_turn_goes_on(server: Running, kfm: Client) -> None:
    turn = await kfm.turns.start("wait")
    with pytest.raises(ResultTimeout):
        await turn.result(timeout=0.2)
    with pytest.raises(errors.DeadlineExceeded):
        async for _ in turn.events(timeout=0.2):
            pass
    await turn.cancel("enough")
    assert (await turn.get()).outcome == Outcome.CANCELLED
    with pytest.raises(errors.TurnFinished):
        await turn.pause()


async def test_a_wrong_address_shows_within_seconds() -> None:
    began = time.monotonic()
    async with Client("127.0.0.1:1") as client:
        with pytest.raises(ConnectFailed) as failure:
            await client.turns.start("hello")
        assert failure.value.exit_code == 9
        with pytest.raises(ConnectFailed):
            await client.turns.start("hello", watch=True)
    assert time.monotonic() - began < 10


async def test_a_call_never_takes_longer_than_its_total_deadline(server: Running) -> None:
    async with Client(server.grpc, timeout=0.6) as client:
        await client.server_info()
        server.turns.fail = [Unavailable() for _ in range(50)]
        with pytest.raises(errors.Unavailable):
            await client.turns.get("turn_1")
        assert server.turns.fail, "it gave up before all of them were met"


async def test_the_token_is_sent_and_its_absence_is_typed() -> None:
    async with toy_door(token="s3cret") as running:
        async with Client(running.grpc, token="s3cret") as client:
            assert (await client.server_info()).schema_release
        async with Client(running.grpc, token="") as client:
            with pytest.raises(errors.Unauthenticated):
                await client.server_info()


async def test_lists_go_on_page_by_page(kfm: Client) -> None:
    for index in range(5):
        await kfm.turns.start(f"turn {index}")
    first, token = await kfm.turns.list().page(page_size=2)
    assert len(first) == 2
    assert token
    assert len([t async for t in kfm.turns.list()]) == 5
    history = [e.sequence async for e in kfm.turns.history(first[0].turn_id)]
    assert history == [1, 2, 3]
    listing = kfm.turns.history(first[0].turn_id, page_size=2)
    assert [[e.sequence for e in page.items] async for page in listing.pages()] == [[1, 2], [3]]
    assert [t.turn_id for t in await kfm.turns.list().first(3)] == [f"turn_000{n}" for n in (4, 3, 2)]


async def test_cancelling_a_reader_cancels_it_and_nothing_else(server: Running, kfm: Client) -> None:
    turn = await kfm.turns.start("wait")

    reached = asyncio.Event()

    async def read() -> None:
        async for _ in turn.events():
            reached.set()

    reader = asyncio.create_task(read(), name="reader")
    async with asyncio.timeout(30):
        await reached.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    async with asyncio.timeout(30):
        await server.door.gate.empty()
    assert (await turn.get()).turn_id == turn.id


async def test_a_mapping_becomes_json_data_and_names_of_members_are_taken(
    server: Running, kfm: Client
) -> None:
    turn = await kfm.turns.start(
        {"plan": {"steps": []}}, on_busy="reject", limits={"max_steps": 3}, labels={"a": "b"}
    )
    spec = server.turns.specs[turn.id]
    assert [p.data_json for p in spec.input] == ['{"plan": {"steps": []}}']
    assert (spec.on_busy, spec.limits.max_steps, dict(spec.labels)) == (BusyMode.REJECT, 3, {"a": "b"})
    several = await kfm.turns.start(["hello", {"a": 1}])
    assert [p.WhichOneof("content") for p in server.turns.specs[several.id].input] == ["text", "data_json"]


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("message", "how", "field"),
    [
        (5, {}, "message"),
        (None, {}, "message"),
        (b"text", {}, "message"),
        (["x", 5], {}, "message[1]"),
        ({"a": NAN}, {}, "message"),
        ({"a": object()}, {}, "message"),
        ("\udcff", {}, "message.text"),
        (Part(text=5), {}, "message.text"),  # type: ignore[arg-type]
        ("x", {"labels": {"a": 1}}, "labels"),
        ("x", {"labels": "a"}, "labels"),
        ("x", {"limits": 5}, "limits"),
        ("x", {"limits": {"max_stepz": 1}}, "limits.max_stepz"),
        ("x", {"limits": {"max_steps": "1"}}, "limits.max_steps"),
        ("x", {"on_busy": "wait"}, "on_busy"),
        ("x", {"session_id": 5}, "session_id"),
        ("x", {"idempotency_key": 5}, "idempotency_key"),
        ("x", {"timeout": "5"}, "timeout"),
        ("x", {"timeout": NAN}, "timeout"),
        ("x", {"timeout": INFINITE}, "timeout"),
        ("x", {"timeout": 1e300}, "timeout"),
    ],
)
async def test_what_cannot_be_sent_is_refused_by_name_and_nothing_starts(
    server: Running, kfm: Client, message: Any, how: dict[str, Any], field: str
) -> None:
    with pytest.raises(errors.InvalidArgument) as refused:
        await kfm.turns.start(message, **how)
    assert [v.field for v in refused.value.violations] == [field]
    assert field in refused.value.message
    assert not server.turns.turns


async def test_wrong_arguments_of_a_handle_are_refused_by_name(kfm: Client) -> None:
    turn = kfm.turns.attach("turn_1")
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "settle_as": lambda: turn.settle("s1", "nonsense"),
        "output_json": lambda: turn.answer("s1", True),  # type: ignore[arg-type]
        "timeout": lambda: turn.result(timeout=NAN),
        "after_sequence": lambda: anext(turn.updates(10**30)),
    }
    for field, call in calls.items():
        with pytest.raises(errors.InvalidArgument) as refused:
            await call()
        assert [v.field for v in refused.value.violations] == [field]
    for wrong in (-1, INFINITE, "5"):
        with pytest.raises(errors.InvalidArgument, match="timeout"):
            _ = [e async for e in turn.events(timeout=wrong)]  # type: ignore[arg-type]


def test_a_part_holds_one_thing() -> None:
    with pytest.raises(errors.InvalidArgument, match="one of text, data_json"):
        Part(text="a", data_json="1")


@pytest.mark.parametrize(
    "endpoint",
    [
        "foo",
        ":5",
        "http://127.0.0.1:46051",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "::1:5",
        "a b:5",
        5,
    ],
)
def test_an_endpoint_is_host_and_port_or_refused_at_once(endpoint: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match=r"endpoint .*KFM_ENDPOINT"):
        Client(endpoint)


@pytest.mark.parametrize("token", ["ü", "a\nb", "a b", 5])
def test_a_token_that_fits_no_header_is_refused_and_not_shown(token: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="token") as refused:
        Client(token=token)
    assert repr(token) not in refused.value.message


@pytest.mark.parametrize("timeout", [NAN, INFINITE, 0, -1, "5", True])
def test_a_client_takes_only_a_patience_that_ends(timeout: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="timeout"):
        Client(timeout=timeout)


async def test_an_endpoint_that_no_resolver_knows_is_given_up(kfm: Client) -> None:
    async with asyncio.timeout(25), Client("nohost.invalid:5") as client:
        with pytest.raises(ConnectFailed, match=r"nohost\.invalid:5"):
            await client.turns.start("x")


async def test_a_server_that_takes_connections_and_says_nothing_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        async with Client(f"{host}:{port}", timeout=1) as client:
            with pytest.raises(ConnectFailed, match=f"{host}:{port}"):
                await client.turns.start("x")


async def test_a_client_that_is_closed_while_it_connects_says_so() -> None:
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with asyncio.timeout(30), await asyncio.start_server(silent, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        client = Client(f"{host}:{port}")
        starting = asyncio.create_task(client.turns.start("x"), name="starting")
        await asked.wait()
        await client.close()
        with pytest.raises(RuntimeError, match="closed"):
            await starting


@pytest.mark.parametrize("watch", [False, True])
async def test_a_server_that_keeps_draining_is_the_failure_and_not_the_time(
    server: Running, watch: bool
) -> None:
    async with Client(server.grpc, timeout=0.6) as client:
        await client.server_info()
        await server.door.drain(0)
        with pytest.raises((errors.Unavailable, errors.Draining)) as failure:
            await client.turns.start("x", watch=watch)
    assert failure.value.exit_code == 9
    assert not server.turns.turns


async def test_a_closed_client_says_so(server: Running) -> None:
    async with Client(server.grpc) as client:
        turn = await client.turns.start("hello")
    with pytest.raises(RuntimeError, match="closed"):
        await client.turns.start("hello")
    with pytest.raises(RuntimeError, match="closed"):
        _ = [e async for e in turn.events()]


def _failed(reason: str) -> Turn:
    return Turn("turn_1", outcome=Outcome.FAILED, error=Error(reason=reason, message=f"because {reason}"))


@pytest.mark.parametrize(
    "reason",
    ["PLAN_INVALID", "STEP_LIMIT_EXCEEDED", "TOOL_FAILED", "TOOL_UNAVAILABLE", "STEP_TIMEOUT", "OF_TOMORROW"],
)
def test_a_failed_turn_raises_its_own_reason_and_message(reason: str) -> None:
    with pytest.raises(TurnFailed) as failed:
        check_outcome(_failed(f"REASON_{reason}"))
    assert failed.value.reason == f"REASON_{reason}"
    assert failed.value.message == f"because REASON_{reason}"
    assert (failed.value.exit_code, failed.value.metadata) == (6, {"turn_id": "turn_1"})


@pytest.mark.parametrize(
    ("wait", "state", "verb"),
    [
        (WaitReason.HUMAN, StepState.WAITING, "answer"),
        (WaitReason.NEEDS_REVIEW, StepState.NEEDS_REVIEW, "settle"),
        (WaitReason.PAUSED, StepState.PENDING, "resume"),
    ],
)
def test_a_turn_that_waits_for_a_person_says_why_and_which_verb_ends_it(
    wait: WaitReason, state: StepState, verb: str
) -> None:
    steps = (Step(PlanStep("s0"), StepState.SUCCEEDED), Step(PlanStep("s1"), state))
    waiting = TurnNeedsPerson(Turn("turn_1", state=TurnState.WAITING, wait_reason=wait, steps=steps))
    key = "" if wait == WaitReason.PAUSED else "s1"
    assert (waiting.verb, waiting.step_key, waiting.exit_code) == (verb, key, 7)
    assert waiting.reason == f"WAIT_REASON_{wait.name}"
    assert waiting.message.endswith(f"({wait.name}): {verb} {f'step {key!r}' if key else 'the turn'}")


def test_the_package_lists_its_public_names() -> None:
    assert dir(xenocomm) == sorted(xenocomm.__all__)
    assert all(getattr(xenocomm, name) is not None for name in dir(xenocomm))
