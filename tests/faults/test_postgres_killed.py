"""The database dies under load: nothing that was acknowledged is lost, and the server comes back by itself."""

import asyncio
import contextlib
import os
import random
import signal
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kfm_server.journal import embedded
from xenocomm._gen.types import Outcome

from tests.faults.auditor import audit
from tests.faults.work import Watched, amount, ledger_server, plan, run_and_watch
from tests.support.live import LiveServer

TURNS = 24


def postmaster(server: LiveServer) -> int:
    """The process id of the server's own Postgres."""
    assert server.process is not None
    children = psutil.Process(server.process.pid).children()
    return next(c.pid for c in children if c.name() == "postgres")


@pytest.mark.requirement("R8")
@pytest.mark.parametrize("seed", range(amount("KFM_TEST_KILLS", 2, 1)))
async def test_nothing_acknowledged_is_lost_when_postgres_is_killed_under_load(
    seed: int, tmp_path: Path
) -> None:
    draw = random.Random(seed)
    ledger = tmp_path / "ledger.jsonl"
    server = ledger_server(tmp_path / "home", ledger)
    watched = [Watched() for _ in range(TURNS)]
    message = plan("ledger_pure", "ledger_idempotent", "ledger_transactional", "ledger_once")
    try:
        await asyncio.to_thread(server.start)
        async with asyncio.TaskGroup() as running:
            turns = [
                running.create_task(run_and_watch(server.grpc, f"k{i}", message, w), name=f"turn {i}")
                for i, w in enumerate(watched)
            ]
            await turns[draw.randrange(3)]  # the load is on its way
            os.kill(postmaster(server), signal.SIGKILL)
    finally:
        code = await asyncio.to_thread(server.stop)
    assert code == 0, server.log_tail()
    assert [t.result().error for t in turns if t.result().outcome != Outcome.SUCCEEDED] == []
    postgres = await embedded.start(server.home)
    try:
        folded = await audit(postgres.dsn, ledger, {w.turn_id: w.sequences for w in watched})
    finally:
        await postgres.stop()
    assert len(folded) == TURNS


@pytest.mark.requirement("E1")
async def test_health_says_not_serving_while_postgres_is_stopped_and_serving_again_by_itself(
    tmp_path: Path,
) -> None:
    server = LiveServer(tmp_path / "home")
    try:
        await asyncio.to_thread(server.start)
        pid = postmaster(server)
        family = [pid, *(c.pid for c in psutil.Process(pid).children())]
        async with asyncio.timeout(40), grpc.aio.insecure_channel(server.grpc) as channel:
            watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
            states = aiter(watching)
            assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
            for process in family:
                os.kill(process, signal.SIGSTOP)
            try:
                assert (await anext(states)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            finally:
                for process in family:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, signal.SIGCONT)
            assert (await anext(states)).status == health_pb2.HealthCheckResponse.SERVING
            watching.cancel()
    finally:
        await asyncio.to_thread(server.stop)
