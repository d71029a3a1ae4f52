"""How the bridge is run: finding or starting a server, its output, its guards."""

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import traceback
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from kfm_server.doors.http.app import HttpDoor
from kfm_server.doors.http.mcp import MOST_REQUESTS
from mcp.client.client import Client as McpClient
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.support.live import LiveServer, a_moment
from tests.support.mcp import HTTP_2026, call, command, connected, refusal

pytestmark = pytest.mark.requirement("E4")

HELLO: dict[str, Any] = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "by-hand", "version": "1"},
    },
}
ACCEPT = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kfm-mcp-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # Postgres runs as another user when we are root
        yield Path(name)


@contextlib.asynccontextmanager
async def bridge(*arguments: str, **environment: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """`kfm mcp` in a process of its own, its standard input and output in our hands."""
    how = command(*arguments, **environment)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        how.command, *how.args, env=how.env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def exchange(process: asyncio.subprocess.Process, message: dict[str, Any]) -> dict[str, Any]:
    """Send one message and read the next that comes."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    async with asyncio.timeout(60):
        return json.loads(await process.stdout.readline())


async def test_without_a_server_tools_say_so_and_the_bridge_goes_on(home: Path) -> None:
    async with McpClient(stdio_client(command(KFM_HOME=str(home), KFM_ENDPOINT="127.0.0.1:1"))) as client:
        assert len((await client.list_tools()).tools) == 7
        for _ in range(2):
            said = await refusal(client, "kfm_turns_list")
            assert "No KFM server runs there" in said
            assert "kfm mcp --start" in said
        assert (await client.list_prompts()).prompts == []


async def test_a_server_that_starts_later_is_found_by_what_it_wrote_into_its_home(
    live_server: LiveServer, home: Path
) -> None:
    async with McpClient(stdio_client(command(KFM_HOME=str(home)))) as client:
        (home / "endpoints.json").write_text(json.dumps({"grpc": "127.0.0.1:1", "http": ""}))
        assert "127.0.0.1:1" in await refusal(client, "kfm_turns_list")
        (home / "endpoints.json").write_text(json.dumps({"grpc": live_server.grpc, "http": ""}))
        assert "turns" in await call(client, "kfm_turns_list")


async def test_standard_output_carries_the_protocol_only_and_says_on_the_other_what_is_wrong(
    home: Path,
) -> None:
    async with bridge(KFM_HOME=str(home), KFM_ENDPOINT="127.0.0.1:1", KFM_LOG_LEVEL="debug") as process:
        assert (await exchange(process, HELLO))["result"]["protocolVersion"] == "2025-11-25"
        assert process.stdin is not None
        process.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        asked = {"name": "kfm_turns_list", "arguments": {}}
        told = await exchange(process, {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asked})
        assert told["result"]["isError"] is True
        process.stdin.close()
        assert process.stdout is not None and process.stderr is not None
        async with asyncio.timeout(30):
            assert await process.stdout.read() == b""
            errors = (await process.stderr.read()).decode()
        assert "no KFM server answers at 127.0.0.1:1" in errors
        assert await process.wait() == 0


@pytest.mark.parametrize("end", ["standard input closes", "SIGTERM"])
async def test_a_server_that_the_bridge_started_ends_with_it(home: Path, end: str) -> None:
    async with bridge("--start", KFM_HOME=str(home), KFM_DRAIN_SECONDS="1") as process:
        await exchange(process, HELLO)
        children = psutil.Process(process.pid).children()
        (server,) = [child for child in children if "kfm_server" in child.cmdline()]
        assert process.stdin is not None
        if end == "SIGTERM":
            process.send_signal(signal.SIGTERM)
        else:
            process.stdin.close()
        async with asyncio.timeout(40):
            await process.communicate()
        assert not server.is_running()


async def test_start_uses_the_server_that_runs(live_server: LiveServer) -> None:
    async with bridge("--start", KFM_ENDPOINT=live_server.grpc) as process:
        await exchange(process, HELLO)
        assert psutil.Process(process.pid).children() == []


async def test_an_unknown_group_is_refused_before_anything_is_served() -> None:
    async with bridge("--group", "all") as process:
        _, errors = await process.communicate()
        assert process.returncode == 2
        assert "no group of tools is called 'all'; there are: steps" in " ".join(errors.decode().split())


async def refused_by(target: Any, era: Any) -> str:
    """What the official client says of a server that does not let it in."""
    with pytest.raises(Exception) as failed:
        async with McpClient(target, mode=era) as client:
            await client.list_tools()
    return "".join(traceback.format_exception(failed.value))


@pytest.mark.requirement("S1")
async def test_the_http_door_asks_mcp_callers_for_the_token(home: Path, database: str) -> None:
    server = LiveServer(
        home, database_url=database, environment={"KFM_TOKEN": "open sesame".replace(" ", "-")}
    )
    try:
        server.start()
        url = f"http://{server.http}/mcp"
        async with httpx2.AsyncClient() as http:
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                refused = await http.post(url, json=HELLO, headers={**ACCEPT, **headers})
                assert refused.status_code == 401
                assert refused.headers["WWW-Authenticate"] == "Bearer"
        for sent, words in (
            ({}, "asks for its token"),
            ({"Authorization": "Bearer wrong"}, "token sent is wrong"),
        ):
            for era in ("2026-07-28", "legacy", "auto"):
                async with httpx2.AsyncClient(headers=sent) as http:
                    assert words in await refused_by(streamable_http_client(url, http_client=http), era)
        stdio = stdio_client(command(KFM_ENDPOINT=server.grpc, KFM_TOKEN="wrong"))
        async with McpClient(stdio) as client:
            assert "token sent is wrong" in await refusal(client, "kfm_turns_list")
        allowed = httpx2.AsyncClient(headers={"Authorization": "Bearer open-sesame"})
        async with McpClient(streamable_http_client(url, http_client=allowed)) as client:
            assert "turns" in await call(client, "kfm_turns_list")
    finally:
        server.kill()


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1.evil.example"}, 403),
        ({"Origin": "http://localhost:5173"}, 200),
        ({}, 200),
    ],
)
@pytest.mark.parametrize("era", ["2025-11-25", "2026-07-28"])
async def test_a_page_of_another_site_cannot_call_a_server_of_this_machine(
    live_server: LiveServer, headers: dict[str, str], status: int, era: str
) -> None:
    message: dict[str, Any] = HELLO
    more: dict[str, str] = {}
    if era == "2026-07-28":
        meta = {"protocolVersion": era, "clientCapabilities": {}, "clientInfo": HELLO["params"]["clientInfo"]}
        named = {f"io.modelcontextprotocol/{name}": value for name, value in meta.items()}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": named}}
        more = {"MCP-Protocol-Version": era, "Mcp-Method": "tools/list"}
    async with httpx2.AsyncClient() as http:
        answer = await http.post(
            f"http://{live_server.http}/mcp", json=message, headers={**ACCEPT, **more, **headers}
        )
    assert answer.status_code == status


async def test_a_request_beyond_its_limit_is_refused_before_it_is_read(live_server: LiveServer) -> None:
    async with httpx2.AsyncClient() as http:
        big = await http.post(
            f"http://{live_server.http}/mcp",
            content=b" " * (4 * 1024 * 1024 + 1),
            headers={**ACCEPT, "Content-Type": "application/json"},
        )
    assert big.status_code == 413


async def test_open_requests_are_bounded_and_leave_room_for_health(live_server: LiveServer) -> None:
    host, _, port = live_server.http.rpartition(":")
    head = f"POST /mcp HTTP/1.1\r\nHost: {live_server.http}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    async with contextlib.AsyncExitStack() as stack, httpx2.AsyncClient() as http:
        for _ in range(MOST_REQUESTS):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.callback(writer.close)
            writer.write(head.encode())
            await writer.drain()
        async with asyncio.timeout(30):
            while (
                await http.post(f"http://{live_server.http}/mcp", json=HELLO, headers=ACCEPT)
            ).status_code != 503:
                await a_moment()
        assert (await http.get(f"http://{live_server.http}/health/live")).status_code == 200
    async with asyncio.timeout(30), httpx2.AsyncClient() as http:
        while (
            await http.post(f"http://{live_server.http}/mcp", json=HELLO, headers=ACCEPT)
        ).status_code != 200:
            await a_moment()


async def test_a_server_without_the_extra_serves_the_rest_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "kfm_mcp", None)  # as if it were not installed
    for name in [name for name in sys.modules if name.startswith("kfm_mcp.")]:
        monkeypatch.delitem(sys.modules, name)
    door = HttpDoor(address="127.0.0.1:0", parts=lambda: {"": True}, grpc=lambda: "127.0.0.1:1")
    address = await door.start()
    try:
        async with httpx2.AsyncClient() as http:
            assert (await http.get(f"http://{address}/health/live")).status_code == 200
            missing = await http.post(f"http://{address}/mcp", json=HELLO)
            assert missing.status_code == 501
            assert "kfm-server[mcp]" in missing.json()["error"]["message"]
    finally:
        await door.stop()


async def test_the_bridge_is_loaded_only_when_it_is_asked_for(home: Path) -> None:
    server = LiveServer(home, environment={"PYTHONVERBOSE": "1"})
    try:
        server.start()
        assert "import 'kfm_mcp" not in server.log_tail(1_000_000)
        async with httpx2.AsyncClient() as http:
            await http.post(f"http://{server.http}/mcp", json=HELLO, headers=ACCEPT)
        assert "import 'kfm_mcp" in server.log_tail(1_000_000)
    finally:
        server.kill()


@pytest.mark.requirement("R9")
async def test_a_server_that_offers_the_steps_group_lets_a_host_answer_over_http(
    home: Path, database: str
) -> None:
    server = LiveServer(home, database_url=database, environment={"KFM_MCP_GROUP": "steps"})
    ask = {"plan": {"steps": [{"key": "ask", "kind": "human", "instructions": "Which day?"}]}}
    try:
        server.start()
        async with connected(HTTP_2026, server.grpc, server.http) as client:
            begun = await call(
                client, "kfm_turn_start", {"turn": {"input": [{"data_json": json.dumps(ask)}]}}
            )
            turn = {"turn_id": begun["turn_id"]}
            await call(client, "kfm_step_answer", {**turn, "step_key": "ask", "output_json": '"Monday"'})
            ended = await call(client, "kfm_turn_wait", turn)
        assert ended["turn"]["outcome"] == "OUTCOME_SUCCEEDED"
    finally:
        server.kill()
