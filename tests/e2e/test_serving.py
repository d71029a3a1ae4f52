"""How the server starts, guards its doors, tells of itself and stops: real processes, signals and ports."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from kfm.turn.v1 import turn_service_pb2 as rpc
from xenocomm import Client, Outcome, errors

from tests.e2e.conftest import TOOLS
from tests.support.live import LiveServer, a_moment
from tests.support.plans import Gate, call, given, started, until

Start = Callable[..., LiveServer]


@pytest.fixture
def servers() -> Generator[Start]:
    """Makes servers with homes of their own; all are gone after the test."""
    made: list[LiveServer] = []

    def make(home: Path | None = None, **environment: str) -> LiveServer:
        if home is None:
            home = Path(tempfile.mkdtemp(prefix="kfm-serving-"))
            home.chmod(0o755)
        server = LiveServer(
            home, tools=TOOLS, environment={"LEDGER_FILE": str(home / "ledger")} | environment
        )
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()
        shutil.rmtree(server.home, ignore_errors=True)


def get(server: LiveServer, path: str, token: str = "") -> tuple[int, str]:
    """Status and body of one HTTP request."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://{server.http}{path}", headers=headers), timeout=10
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def serve(**settings: str) -> tuple[int, str]:
    """Exit code and stderr of a `kfm serve` that should not come up."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")} | settings
    done = subprocess.run(
        [sys.executable, "-m", "kfm_server"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=Path(__file__).parents[2],
    )
    return done.returncode, done.stderr


# -- what it tells of itself


@pytest.mark.requirement("E2", "V1")
async def test_health_and_metrics_tell_of_a_real_turn(live_server: LiveServer, live: Client) -> None:
    await live.turns.run("what is 1 + 2?")
    status, body = await asyncio.to_thread(get, live_server, "/health/live")
    assert (status, json.loads(body)["status"]) == (200, "live")
    status, body = await asyncio.to_thread(get, live_server, "/health/ready")
    assert (status, json.loads(body)["parts"]["journal"]) == (200, True)
    status, body = await asyncio.to_thread(get, live_server, "/metrics")
    assert status == 200
    counted = [line for line in body.splitlines() if "SubmitTurn" in line and not line.startswith("#")]
    assert counted
    assert "kfm_partitions_owned 16.0" in body
    async with grpc.aio.insecure_channel(live_server.grpc) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.requirement("E1")
async def test_reflection_lists_the_services_with_their_comments(live_server: LiveServer) -> None:
    async with grpc.aio.insecure_channel(live_server.grpc) as channel:
        call_ = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        requests = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="kfm.turn.v1.TurnService"),
        ]
        answers = [a async for a in call_(iter(requests))]
    names = {s.name for s in answers[0].list_services_response.service}
    assert names >= {"kfm.turn.v1.TurnService", "kfm.admin.v1.AdminService", "grpc.health.v1.Health"}
    raw = answers[1].file_descriptor_response.file_descriptor_proto
    files = [descriptor_pb2.FileDescriptorProto.FromString(f) for f in raw]
    file = next(f for f in files if f.name.endswith("turn_service.proto"))
    comments = {tuple(p.path): p.leading_comments for p in file.source_code_info.location}
    for index, method in enumerate(file.service[0].method):
        assert comments[(6, 0, 2, index)].strip().startswith(method.name)


# -- who may come in


@pytest.mark.requirement("E1", "E2", "E5", "E6")
async def test_with_a_token_every_door_asks_for_it(servers: Start) -> None:
    server = servers(KFM_TOKEN="s3cret")
    await asyncio.to_thread(server.start)
    async with Client(server.grpc, token="") as stranger, Client(server.grpc, token="wrong") as forger:
        for client in (stranger, forger):
            with pytest.raises(errors.Unauthenticated):
                await client.turns.start("what is 1 + 1?")
            with pytest.raises(errors.Unauthenticated):
                await client.server_info()
    async with Client(server.grpc, token="s3cret") as known:
        assert (await known.turns.run("what is 1 + 1?")).outcome == Outcome.SUCCEEDED
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            _ = [answer async for answer in info(iter(()))]  # a refusal may come before a first message goes
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert (await asyncio.to_thread(get, server, "/metrics"))[0] == 401
    assert (await asyncio.to_thread(get, server, "/metrics", "wrong"))[0] == 401
    assert (await asyncio.to_thread(get, server, "/metrics", "s3cret"))[0] == 200
    for token, code in (("", 4), ("s3cret", 0)):
        command = [sys.executable, "-m", "kfm_server.doors.cli.main", "turn", "list"]
        environment = {"KFM_ENDPOINT": server.grpc, "KFM_TOKEN": token, "PATH": ""}
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        _, err = await process.communicate()
        assert process.returncode == code, err
    assert "s3cret" not in server.log_tail(1000)


@pytest.mark.requirement("E1")
@pytest.mark.parametrize("name", ["KFM_GRPC_ADDRESS", "KFM_HTTP_ADDRESS"])
def test_a_bind_beyond_loopback_without_a_token_is_refused(name: str, tmp_path: Path) -> None:
    addresses = {"KFM_GRPC_ADDRESS": "127.0.0.1:0", "KFM_HTTP_ADDRESS": "127.0.0.1:0"} | {name: "0.0.0.0:0"}
    code, err = serve(KFM_HOME=str(tmp_path / "home"), **addresses)
    assert code == 2
    assert "KFM_TOKEN" in err
    assert "Traceback" not in err
    assert not (tmp_path / "home" / "endpoints.json").exists()


def test_a_second_server_on_the_same_home_is_refused_and_the_first_serves_on(live_server: LiveServer) -> None:
    code, err = serve(
        KFM_HOME=str(live_server.home), KFM_GRPC_ADDRESS="127.0.0.1:0", KFM_HTTP_ADDRESS="127.0.0.1:0"
    )
    assert code != 0
    assert str(live_server.home) in err
    assert "Traceback" not in err
    assert json.loads((live_server.home / "endpoints.json").read_text())["grpc"] == live_server.grpc
    assert get(live_server, "/health/ready")[0] == 200


def test_a_misspelt_setting_stops_the_start_and_is_named(tmp_path: Path) -> None:
    code, err = serve(KFM_HOME=str(tmp_path), KFM_TOKN="x")
    assert code == 2
    assert "KFM_TOKN" in err
    assert "Traceback" not in err


# -- how it stops


@pytest.mark.requirement("R8", "E1", "FT21")
async def test_a_stop_lets_a_running_step_end_and_a_watcher_goes_on_after_the_restart(servers: Start) -> None:
    server = servers()
    await asyncio.to_thread(server.start)
    gate = Gate(server.home / "gate")
    async with Client(server.grpc, timeout=30) as kfm:
        plan = given(call("s1", "ledger_once", hold=gate.hold), call("s2", "ledger_once", "s1"))
        turn = await kfm.turns.start(plan, idempotency_key="drained")
        await until(turn, started("s1"))

        async def watch() -> list[int]:
            return [e.sequence async for e in turn.events(timeout=30)]

        watching = asyncio.create_task(watch(), name="watcher")
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        await refuses(server)
        gate.open()
        assert await asyncio.to_thread(server.await_death, 15.0)
        assert server.process.returncode == 0, server.log_tail()
        assert not (server.home / "endpoints.json").exists(), "it says where a server listens, and none does"
        await asyncio.to_thread(server.start)
        sequences = await watching
        assert sequences == list(range(1, len(sequences) + 1))
        done = await turn.result()
        assert done.outcome == Outcome.SUCCEEDED
        assert [len(s.attempts) for s in done.steps] == [1, 1]


async def refuses(server: LiveServer) -> None:
    """Return once the server has begun to drain: it then refuses what would change something."""
    async with asyncio.timeout(30), grpc.aio.insecure_channel(server.grpc) as channel:
        submit = channel.unary_unary(
            "/kfm.turn.v1.TurnService/SubmitTurn",
            request_serializer=rpc.SubmitTurnRequest.SerializeToString,
            response_deserializer=rpc.SubmitTurnResponse.FromString,
        )
        request = rpc.SubmitTurnRequest(turn={"input": [{"text": "what is 1 + 1?"}]}, idempotency_key="probe")
        while True:
            try:
                await submit(request, timeout=5)
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.UNAVAILABLE, error
                return
            await a_moment()


# -- when there is too much


@pytest.mark.requirement("E1", "FT16")
async def test_a_session_with_too_many_waiting_turns_refuses_more_with_a_reason_and_a_time(
    live: Client, tmp_path: Path
) -> None:
    gate = Gate(tmp_path / "gate")
    first = await live.turns.start(given(call("s1", "ledger_idempotent", hold=gate.hold)))
    await until(first, started("s1"))
    message = given(call("s1", "ledger_pure"))
    waiting = await asyncio.gather(
        *(live.turns.start(message, session_id=first.session_id) for _ in range(100))
    )
    async with Client(live.endpoint, timeout=0.5) as hasty:
        with pytest.raises(errors.XenocommError) as refused:
            await hasty.turns.start(message, session_id=first.session_id)
    cause: BaseException | None = refused.value
    while cause is not None and not isinstance(cause, errors.Overloaded):
        cause = cause.__cause__
    assert isinstance(cause, errors.Overloaded), repr(refused.value)
    assert "max_queued_turns" in cause.message
    gate.open()
    results = await asyncio.gather(*(w.result() for w in waiting))
    assert {r.outcome for r in results} == {Outcome.SUCCEEDED}


# -- when the database goes away


@pytest.mark.requirement("E1", "R8")
async def test_a_frozen_database_shows_in_the_health_within_two_seconds_and_its_return_too(
    servers: Start,
) -> None:
    server = servers()
    await asyncio.to_thread(server.start)
    assert server.process is not None
    postgres = [
        p for p in psutil.Process(server.process.pid).children(recursive=True) if "postgres" in p.name()
    ]
    assert postgres
    async with grpc.aio.insecure_channel(server.grpc) as channel, Client(server.grpc, timeout=20) as kfm:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="journal"))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        try:
            for process in postgres:
                process.suspend()
            async with asyncio.timeout(30):
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await asyncio.to_thread(get, server, "/health/ready"))[0] == 503
            assert (await asyncio.to_thread(get, server, "/health/live"))[0] == 200
        finally:
            for process in postgres:
                process.resume()
        async with asyncio.timeout(30):
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        assert (await kfm.turns.run("what is 1 + 1?")).outcome == Outcome.SUCCEEDED
