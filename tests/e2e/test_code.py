"""The tool `code` in a server that runs: what plans and models have it compute, its limits, and each tier by its setting."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest
from xenocomm import Client
from xenocomm._gen.types import Outcome, StepState, Turn

from tests.support.live import LiveServer
from tests.support.model_server import ModelServer
from tests.support.plans import call, given

pytestmark = [pytest.mark.requirement("K3", "T1"), pytest.mark.timeout(180)]


@pytest.fixture(scope="module", params=["interpreter", pytest.param("process", marks=pytest.mark.confined)])
def server(request: pytest.FixtureRequest, module_database: str) -> Generator[LiveServer]:
    """One whose code has this tier, a second, 96 MiB and 2 KiB."""
    home = Path(tempfile.mkdtemp(prefix="kfm-code-"))
    home.chmod(0o755)
    limits = {"KFM_CODE_SECONDS": "1", "KFM_CODE_MEMORY_MIB": "96", "KFM_CODE_OUTPUT_KIB": "2"}
    server = LiveServer(
        home, database_url=module_database, environment={"KFM_CODE_SANDBOX": request.param, **limits}
    )
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


async def ran(client: Client, source: str, **inputs: Any) -> Turn:
    return await client.turns.run(given(call("s", "code", source=source, inputs=inputs)), check=False)


def output(turn: Turn) -> Any:
    (step,) = turn.steps
    assert step.output_json, turn.error
    return json.loads(step.output_json)


async def test_a_plan_computes_with_code(client: Client) -> None:
    turn = await ran(client, "print('adding')\nsum(numbers) * factor", numbers=[1, 2, 3], factor=7)
    assert output(turn) == {"value": 42, "printed": "adding\n"}


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("while True: pass", "The code reached wall_seconds=1."),
        ("x = 'a' * 300_000_000", f"The code reached memory_bytes={96 << 20}."),
        ("print('x' * 3000)", "The code reached output_bytes=2048."),
        ("'x' * 3000", "The code reached output_bytes=2048."),
        ("1 / 0", "ZeroDivisionError: division by zero (line 1)"),
        ("open('/etc/passwd').read()", "Error"),
    ],
)
async def test_a_limit_is_named_in_the_error_of_the_turn(client: Client, source: str, told: str) -> None:
    turn = await ran(client, source)
    assert turn.outcome == Outcome.FAILED
    assert turn.error is not None
    assert told in turn.error.message
    assert output(await ran(client, "1 + 1"))["value"] == 2


async def test_arguments_that_are_no_call_are_refused_by_the_schema(client: Client) -> None:
    wrong: list[dict[str, Any]] = [
        {"source": ""},
        {"source": "x" * 20_001},
        {"source": "1", "inputs": {"_": 1}},
    ]
    for arguments in wrong:
        turn = await client.turns.run(given(call("s", "code", **arguments)), check=False)
        assert turn.outcome == Outcome.FAILED
        assert not any(step.output_json for step in turn.steps)


async def test_calls_at_once_share_nothing(client: Client) -> None:
    turns = await asyncio.gather(*(ran(client, "mine = n\nmine * mine", n=n) for n in range(6)))
    assert [output(turn)["value"] for turn in turns] == [n * n for n in range(6)]
    assert "NameError" in str((await ran(client, "mine")).error)


async def test_a_model_computes_with_code_and_is_told_the_limit_that_it_reached(
    model_live: Client, model_server: ModelServer
) -> None:
    replies = [
        {"name": "code", "arguments": {"source": "sum(rows)", "inputs": {"rows": [19, 23]}}},
        {"name": "code", "arguments": {"source": "print('x' * 100_000)"}},
    ]
    model_server.play({"step": 0, "reply": {"tools": replies}}, {"reply": {"text": "It is 42."}})
    turn = await model_live.turns.run("What is it?", personality="analyst")
    steps = [step for step in turn.steps if step.definition and step.definition.tool == "code"]
    assert [step.state for step in steps] == [StepState.SUCCEEDED, StepState.FAILED]
    told = [m["content"] for m in model_server.requests()[-1]["body"]["messages"] if m["role"] == "tool"]
    assert json.loads(told[0])["value"] == 42
    assert "output_bytes=65536" in told[1]
    offered = [t["function"] for t in model_server.requests()[0]["body"]["tools"]]
    (described,) = [tool["description"] for tool in offered if tool["name"] == "code"]
    assert "At most 5 s, 128 MiB of memory, 64 KiB of output." in described


async def test_where_code_is_off_there_is_no_such_tool(database: str, tmp_path: Path) -> None:
    server = LiveServer(tmp_path, database_url=database, environment={"KFM_CODE_SANDBOX": "off"})
    try:
        await asyncio.to_thread(server.start)
        async with Client(server.grpc, timeout=60) as client:
            offered = {p.name: set(p.tools) for p in await client.personalities.list()}["assistant"]
            assert "calculator" in offered
            assert "code" not in offered
            assert (await ran(client, "1")).outcome == Outcome.FAILED
    finally:
        await asyncio.to_thread(server.stop)
