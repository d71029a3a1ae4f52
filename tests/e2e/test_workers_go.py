"""The worker in Go, built from the protos and run against a real server."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kfm.type.v1 import type_pb2 as types
from xenocomm import Client
from xenocomm._gen.types import Outcome, StepResultEvent, StepStatus

from tests.support.live import LiveServer, a_moment
from tests.support.plans import call, given
from tests.support.work_server import WorkServer, lease

SECONDS = 30.0
BUILD_SECONDS = 600
ROOT = Path(__file__).parents[2]
DIRECTORY = ROOT / "examples" / "go-worker"

pytestmark = [pytest.mark.requirement("R10"), pytest.mark.timeout(BUILD_SECONDS + 60)]


@pytest.fixture(scope="module")
def program() -> Path:
    """The example, generated and built."""
    if shutil.which("go") is None:
        text = "THE GO WORKER IS NOT TESTED: there is no `go` on PATH"
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)
    built = subprocess.run(
        ["make", "-s", "-o", ".venv/.ready", "go-worker"],
        cwd=ROOT,
        capture_output=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    assert built.returncode == 0, built.stderr.decode()
    return DIRECTORY / "go-worker"


class GoWorker:
    """The program, running."""

    def __init__(self, program: Path, endpoint: str, log: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KFM_")}
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [program, "-endpoint", endpoint, "-name", "gopher"], stderr=file, env=environment
            )

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


@pytest.fixture
def home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="kfm-go-"))
    home.chmod(0o755)
    yield home
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def server() -> AsyncIterator[WorkServer]:
    server = await WorkServer().start()
    yield server
    await server.stop()


async def test_a_turn_goes_through_the_worker_in_go(home: Path, program: Path, database: str) -> None:
    server = LiveServer(home, database_url=database)
    server.start()
    worker = GoWorker(program, server.grpc, home / "worker.log")
    try:
        async with Client(server.grpc, timeout=SECONDS) as client, asyncio.timeout(SECONDS):
            while not (await client.server.workers("go")).workers:
                await a_moment()
            turn = await client.turns.start(
                given(call("a", "word_count", text="one two three"), call("b", "sha256", "a", text="one"))
            )
            assert (await turn.result(timeout=SECONDS)).outcome == Outcome.SUCCEEDED
            found = [e.event async for e in turn.events() if isinstance(e.event, StepResultEvent)]
        assert [(r.status, r.worker) for r in found] == [(StepStatus.SUCCEEDED, "gopher")] * 2
        assert json.loads(found[0].output_json) == {"words": 3}
        assert json.loads(found[1].output_json) == {"sha256": hashlib.sha256(b"one").hexdigest()}
        assert worker.stop() == 0, worker.log.read_text()
    finally:
        worker.process.kill()
        server.kill()


async def test_the_worker_in_go_keeps_the_protocols_rules(
    home: Path, program: Path, server: WorkServer
) -> None:
    worker = GoWorker(program, server.endpoint, home / "worker.log")
    try:
        session = await server.session()
        assert (session.hello.pool, session.hello.worker, bool(session.hello.instance)) == (
            "go",
            "gopher",
            True,
        )
        assert (await session.hears("capacity")).capacity == 8
        session.lease(lease("a", "word_count", '{"text": "x y"}', effect=types.EFFECT_CONTRACT_PURE))
        first = await session.hears("result")
        assert json.loads(first.output_json) == {"words": 2}
        await server.stop()  # before the acknowledgement
        await server.start()
        session = await server.session()
        assert [ref.step_key for ref in session.hello.running] == ["a"]
        await session.hears("capacity")
        assert await session.hears("result") == first
        session.acknowledge(first.ref)
        session.lease(lease("b", "word_count", start_within=-1.0))
        late = await session.hears("result")
        assert late.error.reason == "REASON_FENCED"
        session.acknowledge(late.ref)
        session.lease(lease("c", "unknown"))
        assert (await session.hears("decline")).ref.step_key == "c"
        worker.process.send_signal(signal.SIGTERM)
        assert (await session.hears("capacity")).capacity == 0
        assert worker.process.wait(SECONDS) == 0
    finally:
        worker.process.kill()
