"""A server on a host that cannot confine processes: it runs, says so wherever one looks, and refuses what needs it."""

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest
from xenocomm import Client
from xenocomm._gen.errors import PersonalityNotFound
from xenocomm._gen.types import Outcome

from tests.e2e.test_packs import pack, write_pack
from tests.support.live import LiveServer
from tests.support.plans import call, given
from tests.support.unconfining import python_without

pytestmark = [
    pytest.mark.confined,  # what cannot be taken away is not there
    pytest.mark.requirement("K3", "ST14"),
    pytest.mark.timeout(180),
]
WHY = "does this host allow user namespaces"


@pytest.fixture(scope="module", params=["auto", "process"])
def server(request: pytest.FixtureRequest) -> Generator[LiveServer]:
    """With an untrusted pack that brings a tool, and one that brings none; `params`: what the tool code runs in."""
    home = Path(tempfile.mkdtemp(prefix="kfm-unconfined-"))
    home.chmod(0o755)
    write_pack(home / "personalities" / "teller", "1.0.0")
    plain = 'name: plain\nversion: 1.0.0\ndescription: Has no tools.\nprompts: {system: prompts/system.md}\nuses: ["*"]\n'
    write_pack(home / "personalities" / "plain", "1.0.0", **{"manifest.yaml": plain})
    python = python_without(home, "unshare")
    server = LiveServer(home, python=python, environment={"KFM_CODE_SANDBOX": request.param})
    try:
        server.start()
        yield server
        assert server.stop() == 0, server.log_tail()
    finally:
        server.kill()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
async def client(server: LiveServer) -> AsyncIterator[Client]:
    async with Client(server.grpc, timeout=60) as client:
        yield client


def kfm(server: LiveServer, *words: str) -> subprocess.CompletedProcess[str]:
    """`kfm` on this host."""
    command = [str(server.home / "python"), str(Path(sys.executable).with_name("kfm")), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


async def test_health_and_the_server_itself_say_what_it_can_confine(
    client: Client, server: LiveServer
) -> None:
    told = json.loads(await asyncio.to_thread(server.get, "/health/sandbox"))
    assert told["interpreter"] == {"able": True, "reason": "Every attempt to get out was refused."}
    assert (told["process"]["able"], WHY in told["process"]["reason"]) == (False, True)
    able = [c for c in (await client.server.info()).capabilities if c.startswith("sandbox.")]
    assert able == ["sandbox.interpreter"]


async def test_doctor_says_it_and_does_not_fail(server: LiveServer) -> None:
    done = await asyncio.to_thread(kfm, server, "doctor", "--endpoint", server.grpc, "-o", "json")
    assert done.returncode == 0, done.stderr
    checks: dict[str, dict[str, Any]] = {found["check"]: found for found in json.loads(done.stdout)}
    assert checks["sandbox interpreter"]["ok"]
    assert not checks["sandbox process"]["ok"]
    assert WHY in checks["sandbox process"]["detail"]
    assert checks["server"]["detail"].endswith("sandboxes interpreter")


async def test_code_runs_in_the_best_tier_or_is_refused_with_the_reason(
    client: Client, server: LiveServer
) -> None:
    turn = await client.turns.run(given(call("s", "code", source="6 * 7")), check=False)
    if server.environment["KFM_CODE_SANDBOX"] == "auto":
        assert json.loads(turn.steps[0].output_json)["value"] == 42
    else:
        assert turn.outcome == Outcome.FAILED
        assert turn.error is not None
        assert "This host cannot confine code (process)" in turn.error.message
        assert WHY in turn.error.message


async def test_an_untrusted_pack_with_tools_is_refused_and_one_without_is_not(client: Client) -> None:
    refused = await pack(client, "teller", lambda p: bool(p.problems))
    (problem,) = refused.problems
    assert "brings tools, and this host cannot confine them" in problem
    assert WHY in problem
    with pytest.raises(PersonalityNotFound):
        await client.turns.start("hello", personality="teller")
    assert not (await pack(client, "plain", lambda p: bool(p.version))).problems


async def test_a_pack_that_comes_along_cannot_run_its_tools_either(client: Client) -> None:
    plan = given(call("s", "parse_csv", text="a,b\n1,2\n"))
    turn = await client.turns.run(plan, personality="analyst", check=False)
    assert turn.outcome == Outcome.FAILED
    assert turn.error is not None
    assert WHY in turn.error.message


async def test_installing_one_tells_that_it_will_not_run_here_and_its_cases_fail(
    server: LiveServer, tmp_path: Path
) -> None:
    made = await asyncio.to_thread(kfm, server, "personality", "new", "helper", str(tmp_path / "helper"))
    assert made.returncode == 0, made.stderr
    tested = await asyncio.to_thread(kfm, server, "personality", "test", str(tmp_path / "helper"))
    assert tested.returncode == 1
    assert WHY in tested.stdout
    into = str(tmp_path / "packs")
    words = ("personality", "install", str(tmp_path / "helper"), "--into", into, "--yes")
    installed = await asyncio.to_thread(kfm, server, *words)
    assert installed.returncode == 0, installed.stderr
    assert WHY in installed.stderr
