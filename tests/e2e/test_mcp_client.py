"""Tools of MCP servers in turns of a real server: over standard streams and over HTTP, good ones and bad ones."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from xenocomm import Client, Outcome, Turn
from xenocomm._gen.types import StepState, WaitReason

from tests.support.forking import KFM
from tests.support.live import LiveServer
from tests.support.mcp_tools import ROOT, HttpServer
from tests.support.plans import call, given, until, waits

pytestmark = [pytest.mark.requirement("T1", "T2", "ST7"), pytest.mark.timeout(240)]

BOTH = ("pipe", "web")
SERVERS = """
[mcp_servers.pipe]
command = "{python}"
args = ["-m", "tests.support.mcp_tools", "{directory}"]
env = {{ PYTHONPATH = "{root}" }}
{how}
[mcp_servers.web]
url = "{url}"
{how}
[mcp_servers.nobody]
url = "http://127.0.0.1:1/mcp"
[personalities.narrow]
planner = "rules"
tools = ["pipe_echo", "web_echo", "nobody_thing"]
"""
HOW = "trust_read_only = true\ndeadline = {deadline}\nbreaker_failures = 2\nbreaker_seconds = 0.5\n"


@pytest.fixture
def http(tmp_path: Path) -> Iterator[HttpServer]:
    server = HttpServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def live(database: str, tmp_path: Path, http: HttpServer) -> AsyncIterator[tuple[Client, LiveServer]]:
    """A server that uses both, and one that is not there."""
    server = LiveServer(tmp_path / "home", database_url=database)
    server.home.mkdir()
    text = SERVERS.format(
        python=sys.executable, directory=tmp_path, root=ROOT, url=http.url, how=HOW.format(deadline=10)
    )
    (server.home / "config.toml").write_text(text)
    await asyncio.to_thread(server.start)
    try:
        async with Client(server.grpc, timeout=60) as kfm:
            for name in BOTH:
                await until_part(server, f"mcp.{name}", True)
            yield kfm, server
    finally:
        await asyncio.to_thread(server.stop)


async def until_part(server: LiveServer, part: str, wanted: bool) -> None:
    """Wait, bounded, until a part of the server's health is so."""
    async with asyncio.timeout(60):
        while (
            json.loads(await asyncio.to_thread(server.get, "/health/ready"))["parts"].get(part) is not wanted
        ):
            await asyncio.to_thread(lambda: None)


async def run(kfm: Client, tool: str, **arguments: Any) -> Turn:
    """A turn with one call, at its end."""
    turn = await kfm.turns.start(given(call("s1", tool, **arguments)))
    return await turn.result(timeout=60, check=False)


def output(turn: Turn) -> Any:
    """What the call gave."""
    assert turn.outcome == Outcome.SUCCEEDED, turn.error
    return json.loads(turn.steps[0].output_json)


def failure(turn: Turn) -> tuple[str, str]:
    """Reason and words of the last attempt."""
    assert turn.outcome != Outcome.SUCCEEDED
    error = turn.steps[0].attempts[-1].error
    assert error is not None
    return error.reason, error.message


@pytest.mark.parametrize("name", BOTH)
async def test_tools_of_both_transports_serve_turns_and_come_out_clean(
    live: tuple[Client, LiveServer], name: str
) -> None:
    kfm, server = live
    assert output(await run(kfm, f"{name}_echo", text="hi")) == {"data": {"said": "hi"}}
    assert output(await run(kfm, f"{name}_get_time_v2")) == {"text": "done"}
    assert output(await run(kfm, f"{name}_picture")) == {"text": "Here.", "left_out": ["image"]}
    assert failure(await run(kfm, f"{name}_fails")) == ("REASON_TOOL_FAILED", "The disk is full.[31m")
    large = output(await run(kfm, f"{name}_huge", bytes=1_000_000))
    assert len(large["text"]) == 1_000_000
    refused = await run(kfm, f"{name}_huge", bytes=9_000_000)
    assert failure(refused) == ("REASON_PAYLOAD_TOO_LARGE", "The tool's output is larger than 8388608 bytes.")
    wrong = await kfm.turns.start(given(call("s1", f"{name}_echo", text=1, more=2)))
    ended = await wrong.result(timeout=60, check=False)
    assert ended.outcome != Outcome.SUCCEEDED and ended.error is not None
    assert "ARGUMENTS" in ended.error.reason or "PLAN" in ended.error.reason
    ledger = (server.home.parent / "ledger").read_text().split()
    assert ledger.count("echo") == 1, "what does not fit the schema never reaches the server"


async def test_the_server_starts_without_one_that_is_away_and_says_so(
    live: tuple[Client, LiveServer],
) -> None:
    kfm, server = live
    await until_part(server, "mcp.nobody", False)
    parts = json.loads(await asyncio.to_thread(server.get, "/health/ready"))
    assert parts["status"] == "ready"
    capabilities = (await kfm.server.info()).capabilities
    assert {"mcp.pipe", "mcp.web", "mcp-away.nobody"} <= set(capabilities)
    asked = await asyncio.create_subprocess_exec(
        *(*KFM, "doctor", "--endpoint", server.grpc, "--output", "json"),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    async with asyncio.timeout(60):
        said, _ = await asked.communicate()
    rows = {row["check"]: row for row in json.loads(said)}
    assert (rows["mcp pipe"]["ok"], rows["mcp nobody"]["ok"]) == (True, False)
    log = (server.home / "server.log").read_text()
    for why in (
        "loops: its references multiply",
        "max_schema_bytes=65536",
        "is no JSON pointer within the schema",
        "max_name=64",
        "another of its tools is pipe_echo",
        "pipe_wrong: its schema is not valid",
    ):
        assert why in log
    assert (await run(kfm, "pipe_loops")).outcome != Outcome.SUCCEEDED


@pytest.mark.parametrize("name", BOTH)
async def test_changes_of_the_list_are_taken_in(live: tuple[Client, LiveServer], name: str) -> None:
    kfm, _ = live
    assert output(await run(kfm, f"{name}_grow")) == {"text": "done"}
    async with asyncio.timeout(60):
        while (await run(kfm, f"{name}_late")).outcome != Outcome.SUCCEEDED:
            continue
    gone = await run(kfm, f"{name}_echo", text="hi")
    assert gone.outcome != Outcome.SUCCEEDED


@pytest.mark.parametrize("name", BOTH)
async def test_a_server_that_dies_is_left_alone_and_comes_back(
    live: tuple[Client, LiveServer], name: str, http: HttpServer
) -> None:
    kfm, server = live
    died = await run(kfm, f"{name}_die")
    assert failure(died)[0] == "REASON_TOOL_UNAVAILABLE"
    if name == "web":
        await until_part(server, "mcp.web", False)
        http.stop()
        http.start()
    async with asyncio.timeout(90):
        while (await run(kfm, f"{name}_echo", text="back")).outcome != Outcome.SUCCEEDED:
            continue
    await until_part(server, f"mcp.{name}", True)


async def test_a_call_of_unknown_outcome_is_not_made_again_but_waits_to_be_settled(
    live: tuple[Client, LiveServer],
) -> None:
    kfm, server = live
    turn = await kfm.turns.start(given(call("s1", "pipe_send", to="ann")))
    await until(turn, waits(WaitReason.NEEDS_REVIEW))
    seen = await turn.get()
    assert seen.steps[0].state == StepState.NEEDS_REVIEW
    error = seen.steps[0].attempts[-1].error
    assert error is not None and "did not answer within deadline=10 s" in error.message
    ledger = (server.home.parent / "ledger").read_text().split()
    assert ledger.count("send") == 1
    await turn.cancel("enough")
