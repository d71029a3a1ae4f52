"""How Xenocomm calls: options, raw responses, TLS, traces, logs, version skew; and what importing it costs."""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import grpc
import pytest
from kfm.catalogue.errors import Unavailable
from kfm.turn.v1 import turn_pb2, turn_service_pb2
from kfm_server.app import CAPABILITIES
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from xenocomm import Client, ConnectFailed, VersionSkew, errors
from xenocomm._gen.types import GetServerInfoResponse
from xenocomm.server import KNOWN_CAPABILITIES, skew

from tests.e2e.toy_door import Running, toy_door
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("E5")


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    async with toy_door("s3cret") as running:
        yield running


@pytest.fixture
async def kfm(server: Running) -> AsyncIterator[Client]:
    async with Client(server.grpc, "s3cret", timeout=5) as client:
        yield client


async def test_options_change_how_calls_are_made_over_the_same_connection(
    server: Running, kfm: Client
) -> None:
    hasty = kfm.with_options(timeout=0.3, metadata={"x-request-id": "req-1"})
    assert (await kfm.turns.run("hello")).output[0].text == "hello"
    server.turns.fail = [Unavailable(retry_after_ms=5_000)]
    with pytest.raises(errors.Unavailable) as late:
        await hasty.turns.get("turn_0000")
    assert late.value.metadata["request_id"] == "req-1"
    more = hasty.with_options(metadata={"x-more": "1"})
    with pytest.raises(errors.TurnNotFound) as missing:
        await more.turns.get("turn_nope")
    assert missing.value.metadata["request_id"] == "req-1"
    await more.close()
    with pytest.raises(RuntimeError, match="closed"):
        await kfm.turns.get("turn_0000")


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": -1}, {"retries": -1}, {"retries": 1.5}, {"metadata": {"A": ""}}]
)
async def test_options_that_make_no_sense_are_refused_by_name(
    kfm: Client, options: dict[str, object]
) -> None:
    with pytest.raises(errors.InvalidArgument, match=next(iter(options))):
        kfm.with_options(**options)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match=next(iter(options))):
        Client(**options)  # type: ignore[arg-type]


async def test_raw_access_has_every_attempt_with_metadata_trailers_and_status(
    server: Running, kfm: Client
) -> None:
    turn = await kfm.turns.start("hello")
    server.turns.fail = [Unavailable(retry_after_ms=1)]
    raw = await kfm.with_raw(kfm.turns.get(turn.id))
    assert raw.value.turn_id == turn.id
    assert [(c.rpc, c.attempt, c.status) for c in raw.calls] == [
        ("TurnService.GetTurn", 1, "UNAVAILABLE"),
        ("TurnService.GetTurn", 2, "OK"),
    ]
    assert "kfm-request-id" in dict(raw.calls[0].trailers)
    assert raw.status == "OK"
    assert all(call.seconds > 0 for call in raw.calls)
    both = await asyncio.gather(
        kfm.with_raw(kfm.turns.get(turn.id)), kfm.with_raw(kfm.server_info()), return_exceptions=False
    )
    assert [len(one.calls) for one in both] == [1, 1]


@pytest.fixture
def certified(tmp_path: Path) -> tuple[Path, Path]:
    """A key, and a certificate of localhost that is its own root."""
    key, certificate = tmp_path / "key.pem", tmp_path / "ca.pem"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -days 1 -keyout {key} -out {certificate}"
    named = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*made.split(), *named], check=True, capture_output=True)
    return key, certificate


async def test_a_server_behind_tls_is_trusted_by_its_roots_and_by_nothing_else(
    certified: tuple[Path, Path],
) -> None:
    key, certificate = certified

    async def get_turn(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        answer = turn_service_pb2.GetTurnResponse(turn=turn_pb2.Turn(turn_id="turn_1"))
        return answer.SerializeToString()

    handler = grpc.method_handlers_generic_handler(
        "kfm.turn.v1.TurnService", {"GetTurn": grpc.unary_unary_rpc_method_handler(get_turn)}
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([handler])
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    try:
        async with Client(f"localhost:{port}", tls_ca=str(certificate), timeout=10) as kfm:
            assert (await kfm.turns.get("turn_1")).turn_id == "turn_1"
        for wrong in ("system", ""):
            async with Client(f"localhost:{port}", tls_ca=wrong, timeout=10, retries=1) as kfm:
                with pytest.raises(errors.Unavailable):
                    await kfm.turns.get("turn_1")
    finally:
        await server.stop(0)


@pytest.mark.requirement("V1")
async def test_the_callers_trace_goes_into_every_event_of_the_turn(live: Client) -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("caller") as span:
        turn = await live.turns.start("what is 2 + 2 ?")
    wanted = f"{span.get_span_context().trace_id:032x}"
    events = [event async for event in turn.events(timeout=20)]
    assert {event.trace_id for event in events} == {wanted}
    given = f"00-{'a' * 32}-{'b' * 16}-01"
    other = await live.with_options(metadata={"traceparent": given}).turns.start("what is 2 + 2 ?")
    async for event in other.events(timeout=20):
        assert event.trace_id == "a" * 32


@pytest.mark.requirement("V1")
async def test_spans_are_made_when_asked_for_and_hold_no_content(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    async with Client(server.grpc, "s3cret", spans=True) as kfm:
        await kfm.turns.start("a secret message")
        with pytest.raises(errors.TurnNotFound):
            await kfm.turns.get("turn_nope")
    started, failed = exported.get_finished_spans()
    assert started.name == "kfm.turn.v1.TurnService/SubmitTurn"
    assert dict(started.attributes or {})["rpc.method"] == "SubmitTurn"
    assert dict(failed.attributes or {})["error.type"] == "REASON_TURN_NOT_FOUND"
    shown = started.to_json() + failed.to_json()
    assert "secret message" not in shown and "s3cret" not in shown


async def test_the_log_has_names_and_numbers_and_content_only_when_asked_for(
    server: Running, kfm: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "xenocomm")
    await kfm.turns.run("a private message")
    with pytest.raises(errors.TurnNotFound):
        await kfm.turns.get("turn_nope")
    assert "TurnService.SubmitTurn" in caplog.text
    assert "REASON_TURN_NOT_FOUND" in caplog.text
    assert "private message" not in caplog.text
    async with Client(server.grpc, "s3cret", log_content=True) as telling:
        await telling.turns.run("a public message")
    assert "public message" in caplog.text
    assert "s3cret" not in caplog.text


async def test_another_release_and_unknown_capabilities_are_warned_about(
    server: Running, kfm: Client
) -> None:
    def info(release: str, *capabilities: str) -> list[str]:
        return skew(GetServerInfoResponse("0", release, capabilities))

    from xenocomm._gen.types import SCHEMA_RELEASE

    assert info(SCHEMA_RELEASE, *KNOWN_CAPABILITIES) == []
    assert "older" in info("1.0.0")[0]
    assert "newer" in info("99.0.0")[0]
    assert "turns.juggle" in info(SCHEMA_RELEASE, "turns.juggle")[0]
    with pytest.warns(VersionSkew, match="older"):
        await kfm.server_info()


def test_this_client_knows_all_that_this_server_can_do() -> None:
    assert set(CAPABILITIES) <= KNOWN_CAPABILITIES


@pytest.mark.requirement("R11")
async def test_events_are_followed_over_a_killed_server_without_loss_or_repetition() -> None:
    home = Path(tempfile.mkdtemp(prefix="kfm-watch-"))
    os.chmod(home, 0o755)  # Postgres runs as another user when we are root
    server = LiveServer(home)
    try:
        server.start()
        async with Client(server.grpc, timeout=30) as kfm:
            first = await kfm.turns.run("what is 1 + 1 ?", session_id="ses_watched")
            watch = kfm.events.watch("TurnStateEvent.v1", session_id="ses_watched", start="beginning")
            seen: list[str] = []
            caught_up = asyncio.Event()

            async def follow() -> None:
                async for event in watch:
                    seen.append(event.event_id)
                    if event.turn_id == first.turn_id and len(seen) == 2:
                        caught_up.set()
                    if len(seen) == 4:
                        return

            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                group.create_task(follow())
                await caught_up.wait()
                server.kill()
                await asyncio.to_thread(server.start)
                await kfm.turns.run("what is 2 + 2 ?", session_id="ses_watched")
            assert len(set(seen)) == len(seen) == 4
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


async def test_watching_events_where_no_server_is_fails_within_seconds() -> None:
    async with Client("127.0.0.1:1", retries=2) as kfm:
        async with asyncio.timeout(30):
            with pytest.raises(ConnectFailed):
                async for _ in kfm.events.watch():
                    raise AssertionError


def test_importing_the_package_loads_nothing_and_the_client_few_modules_of_its_own() -> None:
    script = (
        "import sys, grpc.aio, google.protobuf.descriptor_pool, google.protobuf.message_factory\n"
        "before = set(sys.modules)\nimport xenocomm\nprint(len(set(sys.modules) - before))\n"
        "before = set(sys.modules)\nxenocomm.Client()\nnew = set(sys.modules) - before\n"
        "print(len(new), *sorted({n.split('.')[0] for n in new}))\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout
    alone, with_client = out.splitlines()
    assert int(alone) <= 2
    count, *packages = with_client.split()
    assert int(count) < 60, with_client
    assert not set(packages) & {"pydantic", "opentelemetry", "typer", "httpx", "rich", "structlog", "tomllib"}


def test_no_warning_is_raised_by_importing_everything() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        import xenocomm.testing

        assert xenocomm.testing.server


async def test_a_cancel_scope_of_anyio_knows_its_own_cancellation(server: Running, kfm: Client) -> None:
    handle = await kfm.turns.start("wait")
    with anyio.move_on_after(0.05) as scope:
        await handle.result(timeout=30)
    assert scope.cancelled_caught
    assert (await handle.get()).turn_id == handle.id
