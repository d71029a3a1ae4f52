"""Traces: from the caller through the door to the turn, its plan, its steps and what they call."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from xenocomm import Client, Part, Turn, errors

from tests.support.collector import Collector, attributes, collector, tree
from tests.support.live import LiveServer
from tests.support.model_server import ModelServer
from tests.support.plans import Gate, call, document, started, until

pytestmark = pytest.mark.requirement("V1")
TOOLS = "tests.support.ledger:TOOLS"
CALLER = "00f067aa0ba902b7"
THREE = document(
    call("one", "ledger_pure"),
    call("two", "ledger_idempotent", "one"),
    call("three", "ledger_once", "two"),
)


@asynccontextmanager
async def traced(
    home: Path, database: str, taker: Collector, **environment: str
) -> AsyncGenerator[LiveServer]:
    """A server that sends its traces to the collector. Without a database it has its own, and takes over at once."""
    server = LiveServer(
        home,
        tools=TOOLS,
        database_url=database,
        environment={
            "KFM_OTLP_ENDPOINT": taker.endpoint,
            "LEDGER_FILE": str(home / "ledger.jsonl"),
            **environment,
        },
    )
    try:
        await asyncio.to_thread(server.start)
        yield server
        assert await asyncio.to_thread(server.stop) == 0, server.log_tail()
    finally:
        server.kill()


def span_of(trace_id: str, *, sampled: bool = True) -> trace.Span:
    """The span that the caller is in."""
    flags = trace.TraceFlags(int(sampled))
    return trace.NonRecordingSpan(trace.SpanContext(int(trace_id, 16), int(CALLER, 16), False, flags))


async def run(server: LiveServer, trace_id: str, data: str = THREE, *, sampled: bool = True) -> Turn:
    """One turn on behalf of a caller that is in a span of its own."""
    async with Client(server.grpc, timeout=20) as client:
        with trace.use_span(span_of(trace_id, sampled=sampled)):
            return await (await client.turns.start([Part(data_json=data)])).result()


def named(spans: list[Span], name: str) -> Span:
    """The one span of that name."""
    (found,) = [span for span in spans if span.name == name]
    return found


async def test_a_turn_of_three_steps_is_one_trace_with_every_step_in_its_place(
    tmp_path: Path, database: str
) -> None:
    trace_id = uuid.uuid4().hex
    async with collector() as taker, traced(tmp_path / "home", database, taker) as server:
        turn = await run(server, trace_id)
        spans = await taker.trace(trace_id, lambda found: len(found) >= 10)
    assert tree(spans) == {
        "kfm.turn.v1.TurnService/SubmitTurn": "",
        "kfm.turn.v1.TurnService/WaitTurn": "",
        "turn": "kfm.turn.v1.TurnService/SubmitTurn",
        "plan given": "turn",
        "step one": "plan given",
        "execute_tool ledger_pure": "step one",
        "step two": "plan given",
        "execute_tool ledger_idempotent": "step two",
        "step three": "plan given",
        "execute_tool ledger_once": "step three",
    }
    assert named(spans, "kfm.turn.v1.TurnService/SubmitTurn").parent_span_id.hex() == CALLER
    whole, tool = named(spans, "turn"), named(spans, "execute_tool ledger_idempotent")
    assert attributes(whole)["kfm.turn_id"] == turn.turn_id
    assert attributes(whole)["gen_ai.conversation.id"] == turn.session_id
    assert attributes(tool)["gen_ai.tool.name"] == "ledger_idempotent"
    assert attributes(tool)["gen_ai.operation.name"] == "execute_tool"
    for span in spans:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.status.code != Status.STATUS_CODE_ERROR
    inner = [span for span in spans if span.kind != Span.SPAN_KIND_SERVER]
    assert all(whole.start_time_unix_nano <= s.start_time_unix_nano for s in inner)
    assert all(s.end_time_unix_nano <= whole.end_time_unix_nano for s in inner)
    assert taker.resources[0]["service.name"] == "kfm-server"


async def test_a_refused_call_has_a_span_that_says_why_and_its_line_names_the_trace(
    tmp_path: Path, database: str
) -> None:
    trace_id = uuid.uuid4().hex
    async with collector() as taker, traced(tmp_path / "home", database, taker) as server:
        async with Client(server.grpc, timeout=20) as client:
            with trace.use_span(span_of(trace_id)), pytest.raises(errors.TurnNotFound):
                await client.turns.get("turn_none")
        (span,) = await taker.trace(trace_id, bool)
        lines = [json.loads(line) for line in server.log_tail(1000).splitlines()]
    assert attributes(span)["error.type"] == "REASON_TURN_NOT_FOUND"
    assert span.status.code == Status.STATUS_CODE_ERROR
    (line,) = [line for line in lines if line.get("reason") == "REASON_TURN_NOT_FOUND"]
    assert (line["trace_id"], line["rpc"]) == (trace_id, "/kfm.turn.v1.TurnService/GetTurn")


async def test_a_collector_that_is_away_loses_no_turn_and_headers_reach_it(
    tmp_path: Path, database: str
) -> None:
    trace_id = uuid.uuid4().hex
    async with collector() as taker:
        taker.refuses = grpc.StatusCode.UNAVAILABLE
        async with traced(
            tmp_path / "home", database, taker, KFM_OTLP_HEADERS="authorization=Bearer hush-hush"
        ) as server:
            await run(server, trace_id)
            asked = taker.asked
            await taker.until(lambda c: c.asked > asked + 1)
            taker.refuses = None
            spans = await taker.trace(trace_id, lambda found: any(s.name == "turn" for s in found))
            assert "hush-hush" not in server.log_tail(10_000)
    told = [json.loads(line) for line in server.log_tail(10_000).splitlines()]
    place = taker.endpoint.removeprefix("http://")
    told = [(line["event"], line["endpoint"]) for line in told if "collector" in line.get("event", "")]
    assert told == [("collector_away", place), ("collector_back", place)]
    assert tree(spans)["execute_tool ledger_once"] == "step three"
    assert taker.metadata[0]["authorization"] == "Bearer hush-hush"


async def test_a_turn_that_another_process_finishes_stays_one_trace(tmp_path: Path) -> None:
    trace_id = uuid.uuid4().hex
    gate = Gate(tmp_path / "gate")
    data = document(call("one", "ledger_pure"), call("two", "ledger_idempotent", "one", hold=gate.hold))
    async with collector() as taker, traced(tmp_path / "home", "", taker) as server:
        context = span_of(trace_id)
        async with Client(server.grpc, timeout=20) as client:
            with trace.use_span(context):
                turn = await client.turns.start([Part(data_json=data)])
            await until(turn, started("two"))
            await asyncio.to_thread(server.kill)
            gate.open()
            await asyncio.to_thread(server.start)
            await turn.result()
        spans = await taker.trace(trace_id, lambda found: any(s.name == "turn" for s in found))
    attempts = [span for span in spans if span.name == "execute_tool ledger_idempotent"]
    assert [attributes(span).get("kfm.attempt") for span in attempts] == [1, 2]
    assert len({span.parent_span_id for span in attempts}) == 1
    assert attributes(attempts[1])["kfm.rerun"] is True


@pytest.mark.parametrize("ratio", ["0", "1"])
async def test_who_calls_decides_what_is_sampled_and_the_ratio_where_nobody_does(
    tmp_path: Path, database: str, ratio: str
) -> None:
    never, always = uuid.uuid4().hex, uuid.uuid4().hex
    async with (
        collector() as taker,
        traced(tmp_path / "home", database, taker, KFM_TELEMETRY_SAMPLE_RATIO=ratio) as server,
    ):
        await run(server, never, sampled=False)
        async with Client(server.grpc, timeout=20) as client:
            nobody = await (await client.turns.start([Part(data_json=THREE)])).result()
        await run(server, always)
        await taker.trace(always, lambda found: any(s.name == "turn" for s in found))
        if ratio == "1":
            await taker.until(
                lambda c: any(attributes(s).get("kfm.turn_id") == nobody.turn_id for s in c.spans)
            )
        assert taker_has(taker, nobody.turn_id) == (ratio == "1")
    assert not [span for span in taker.spans if span.trace_id.hex() == never]


@pytest.mark.requirement("ST15")
@pytest.mark.parametrize("wanted", ["false", "true"])
async def test_what_was_said_is_in_no_span_unless_it_is_asked_for(
    tmp_path: Path, database: str, wanted: str
) -> None:
    trace_id, said = uuid.uuid4().hex, "canary-of-what-was-said"
    data = document(call("one", "ledger_idempotent", note=said))
    async with (
        collector() as taker,
        traced(tmp_path / "home", database, taker, KFM_TELEMETRY_CAPTURE_CONTENT=wanted) as server,
    ):
        await run(server, trace_id, data)
        spans = await taker.trace(trace_id, lambda found: any(s.name == "turn" for s in found))
        assert said not in server.log_tail(10_000)
    assert (said in "".join(map(str, spans))) == (wanted == "true")


async def test_a_model_call_is_a_span_with_its_tokens_and_the_provider_gets_that_span_as_parent(
    tmp_path: Path, database: str, model_server: ModelServer
) -> None:
    trace_id = uuid.uuid4().hex
    home = tmp_path / "home"
    await asyncio.to_thread(configure, home, model_server.url)
    model_server.play({"reply": {"text": "Four.", "input_tokens": 12, "output_tokens": 3}})
    async with collector() as taker, traced(home, database, taker) as server:
        async with Client(server.grpc, timeout=20) as client:
            with trace.use_span(span_of(trace_id)):
                await (await client.turns.start("What is two and two, in a word?")).result()
        spans = await taker.trace(trace_id, lambda found: any(s.name == "turn" for s in found))
        (asked,) = await asyncio.to_thread(model_server.requests)
        counted = await asyncio.to_thread(
            server.await_metric, 'kfm_model_calls_total{model="small",outcome="succeeded"} 1.0'
        )
    chat = named(spans, "chat small")
    facts = attributes(chat)
    assert (facts["gen_ai.usage.input_tokens"], facts["gen_ai.usage.output_tokens"]) == (12, 3)
    assert facts["gen_ai.request.model"] == "small"
    assert facts["kfm.cost_nanos"] == 12 * 1000 + 3 * 2000
    assert asked["traceparent"] == f"00-{trace_id}-{chat.span_id.hex()}-01"
    assert 'kfm_model_tokens_total{direction="input",model="small"} 12.0' in counted
    assert 'kfm_model_cost_usd_total{model="small"} 1.8e-05' in counted


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    """The development server of models."""
    server = ModelServer(token="key-of-the-stub")
    server.start()
    yield server
    server.stop()


def configure(home: Path, url: str) -> None:
    """One model behind HTTP."""
    home.mkdir(parents=True, exist_ok=True)
    home.joinpath("config.toml").write_text(
        f"""
[models.small]
provider = "openai"
model = "scripted"
base_url = "{url}"
api_key = "key-of-the-stub"
input_usd_per_million = 1
output_usd_per_million = 2
[personalities.assistant]
planner = "react"
"""
    )


def taker_has(taker: Collector, turn_id: str) -> bool:
    """Whether a turn's own span came."""
    return any(attributes(span).get("kfm.turn_id") == turn_id for span in taker.spans)
