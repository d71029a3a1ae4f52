"""The session of an MCP server, a real one in a process of its own: what breaks it, what it may cost, how it comes back."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvloop
from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.mcp_settings import McpServerSpec
from kfm_server.ports.tools import ToolCall, ToolError
from kfm_server.secret import Secret
from kfm_server.tools.mcp.server import McpServer
from kfm_server.tools.mcp.stderr import KEPT_CHARACTERS, Stderr
from kfm_server.tools.registry import ToolRegistry

from tests.support.mcp_tools import ROOT, HttpServer

pytestmark = [pytest.mark.requirement("T1", "T2"), pytest.mark.timeout(180)]


class Used:
    """A server and what it brings. `seconds` is what its breaker takes for the time."""

    def __init__(self, spec: McpServerSpec) -> None:
        self.seconds = 0.0
        self.registry = ToolRegistry(())
        self.refused: list[str] = []
        self.server = McpServer(spec, "1", lambda: self.seconds, self._supply)

    def _supply(self, source: str, tools: Any) -> list[str]:
        _, self.refused = self.registry.supply(source, tools)
        return self.refused

    async def call(self, tool: str, **arguments: Any) -> Any:
        """Call it, as a step would."""
        called = ToolCall("k", 1, 1, "acme", "ann", lambda message: None)
        return await self.registry.tools[f"s_{tool}"].call(arguments, called)

    async def connected(self) -> None:
        """Wait, bounded, until it can be called."""
        async with asyncio.timeout(60):
            await self.server.connected.wait()

    async def error(self, tool: str, **arguments: Any) -> ToolError:
        """What a call fails with."""
        with pytest.raises(ToolError) as failed:
            await self.call(tool, **arguments)
        return failed.value


@contextlib.asynccontextmanager
async def used(spec: McpServerSpec) -> AsyncGenerator[Used]:
    """Its session is kept while this is entered, once it is known whether it answers."""
    it = Used(spec)
    async with asyncio.TaskGroup() as tasks:
        kept = tasks.create_task(it.server.run())
        async with asyncio.timeout(60):
            await it.server.settled.wait()
        yield it
        kept.cancel()


def piped(directory: Path, **how: Any) -> McpServerSpec:
    """The server over standard streams."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv[1:] = [{str(directory)!r}]; import runpy"
    code += "; runpy.run_module('tests.support.mcp_tools', run_name='__main__')"
    how = {"deadline": 30.0, "trust_read_only": True, **how}
    return McpServerSpec("s", command=sys.executable, args=("-c", code), **how)


async def test_a_server_that_fails_again_and_again_is_left_alone_and_then_tried_by_one_call(
    tmp_path: Path,
) -> None:
    async with used(piped(tmp_path, breaker_failures=2, breaker_seconds=1.0)) as it:
        for _ in range(2):
            await it.connected()
            died = await it.error("die")
            assert (died.retryable, died.unsure) == (True, True)
            assert str(died).startswith("The connection with the MCP server s broke: ")
        assert it.server.failing
        refused = await it.error("echo", text="hi")
        assert str(refused) == (
            "Calls of the MCP server s failed 2 times in a row: it is left alone for another 1 s."
        )
        assert (refused.retryable, refused.unsure) == (True, False)
        it.seconds += 1.0
        await it.connected()
        assert await it.call("echo", text="hi") == {"data": {"said": "hi\x00"}}
        assert not it.server.failing
    assert (tmp_path / "ledger").read_text().split() == ["die", "die", "echo"]


async def test_a_call_ends_at_the_deadline_of_its_server_and_the_session_goes_on(tmp_path: Path) -> None:
    async with used(piped(tmp_path, deadline=5.0)) as it:
        late = await it.error("slow")
        assert str(late) == "The MCP server s did not answer within deadline=5 s."
        assert (late.retryable, late.unsure) == (True, True)
        assert await it.call("get_time_v2") == {"text": "done"}
        assert it.server.state == "up"


async def test_a_message_without_bounds_is_refused_by_name_over_standard_streams(tmp_path: Path) -> None:
    async with used(piped(tmp_path)) as it:
        huge = await it.error("huge", bytes=20_000_000)
        assert str(huge).endswith("it sent a message larger than max_message_bytes=16777216.")
        assert (huge.retryable, huge.unsure) == (False, True), "it would be as large again"
        await it.connected()
        assert await it.call("get_time_v2") == {"text": "done"}, "it comes back"


async def test_which_of_two_answers_was_too_large_is_not_known_and_both_calls_may_be_repeated(
    tmp_path: Path,
) -> None:
    async with used(piped(tmp_path)) as it, asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(it.error("slow"))
        assert await it.call("get_time_v2") == {"text": "done"}, "asked after the slow one"
        assert (await it.error("huge", bytes=20_000_000)).retryable
        assert (await slow).retryable


async def test_an_answer_without_bounds_is_refused_by_name_over_http(tmp_path: Path) -> None:
    http = HttpServer(tmp_path)
    await asyncio.to_thread(http.start)
    try:
        async with used(McpServerSpec("s", url=http.url, trust_read_only=True)) as it:
            huge = await it.error("huge", bytes=20_000_000)
            assert "larger than max_message_bytes=16777216" in str(huge)
            assert (huge.retryable, huge.unsure) == (False, True), "it may have been done"
            await it.connected()
            assert await it.call("get_time_v2") == {"text": "done"}
    finally:
        http.stop()


async def deaf_at_the_end(
    heard: list[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A connection of a server of the older protocol: it makes a session, and does not answer to its end."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while (head := (await reader.readuntil(b"\r\n\r\n")).decode().lower()).startswith("post"):
            asked = json.loads(await reader.readexactly(int(head.partition("content-length:")[2].split()[0])))
            told = {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "serverInfo": {"name": "s", "version": "1"},
            }
            answers = {"initialize": {"result": told}, "tools/list": {"result": {"tools": []}}}
            unknown = {"error": {"code": -32601, "message": "no such method"}}
            answer = {"jsonrpc": "2.0", "id": asked.get("id")} | answers.get(asked["method"], unknown)
            body = json.dumps(answer) if "id" in asked else ""
            status = "200 OK\r\ncontent-type: application/json" if body else "202 Accepted"
            writer.write(
                f"HTTP/1.1 {status}\r\nmcp-session-id: 1\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
            )
        heard.append(head.partition(" ")[0])
        await reader.read()
    writer.close()


async def test_a_server_that_is_deaf_at_the_end_does_not_keep_a_session_from_ending() -> None:
    heard: list[str] = []
    async with await asyncio.start_server(partial(deaf_at_the_end, heard), "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        async with asyncio.timeout(120), used(McpServerSpec("s", url=f"http://127.0.0.1:{port}/mcp")) as it:
            await it.connected()
        assert "delete" in heard, "it was told"


async def test_what_is_not_allowed_is_not_offered_and_what_is_not_there_is_told(tmp_path: Path) -> None:
    spec = piped(tmp_path, tools=("Get-Time.v2", "send", "nothing"), effect="idempotent")
    async with used(spec) as it:
        assert {n: e.effect for n, e in it.registry.catalogue.items()} == {
            "s_get_time_v2": types.EFFECT_CONTRACT_PURE,
            "s_send": types.EFFECT_CONTRACT_IDEMPOTENT,
        }
    async with used(piped(tmp_path, tools=("Get-Time.v2",), trust_read_only=False)) as it:
        effects = [entry.effect for entry in it.registry.catalogue.values()]
        assert effects == [types.EFFECT_CONTRACT_AT_MOST_ONCE], "a hint that nobody trusts says nothing"


async def test_descriptions_are_cut_and_clean(tmp_path: Path) -> None:
    async with used(piped(tmp_path)) as it:
        assert it.registry.catalogue["s_echo"].description == "Says it again."
        assert len(it.registry.catalogue["s_long"].description) == 2001
        assert it.refused == [
            "s_wrong: its schema is not valid: "
            "\"objekt\" is not valid under any of the schemas listed in the 'anyOf' keyword"
        ]


async def test_a_program_that_is_not_there_is_told_and_stops_nothing() -> None:
    async with used(McpServerSpec("s", command="/nonexistent/mcp")) as it:
        assert (it.server.state, it.server.why) == ("away", "there is no program /nonexistent/mcp")
        assert dict(it.registry.tools) == {}


def test_a_program_that_is_not_there_or_is_none_is_named_also_by_an_event_loop_that_does_not_say_it(
    tmp_path: Path,
) -> None:
    none = tmp_path / "none"
    none.write_text("no program")

    async def why(command: str) -> str:
        async with used(McpServerSpec("s", command=command)) as it:
            return it.server.why

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(why("/nonexistent/mcp")) == "there is no program /nonexistent/mcp"
        said = runner.run(why(str(none)))
        assert said == f"the program {none} cannot be started: Permission denied"


@pytest.fixture
def all_logged() -> Iterator[None]:
    """Whatever another test made of the logs: a level above warnings is not lifted by capture_logs."""
    before = structlog.get_config()
    structlog.reset_defaults()
    yield
    structlog.configure(**before)


@pytest.mark.usefixtures("all_logged")
async def test_what_a_program_that_dies_said_last_is_logged_without_the_secrets_that_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("server", "stdio"):  # those of before may hold on to how another test had logs written
        monkeypatch.setattr(f"kfm_server.tools.mcp.{module}.log", structlog.get_logger())
    code = "import os, sys; print('x' * 9000, os.environ['TOKEN'], file=sys.stderr)"
    code += "; raise ImportError('no key ' + os.environ['TOKEN'] + ', nor ' + os.environ['TOKEN'].split()[1])"
    secrets = {"TOKEN": Secret("Bearer s3cr3t-of-mine")}
    spec = McpServerSpec("s", command=sys.executable, args=("-c", code), env=secrets)
    with structlog.testing.capture_logs() as logged:
        async with used(spec) as it:
            assert (it.server.state, it.server.why) == ("away", "its output ended"), "callers are not told"
    [away, *_] = [line for line in logged if line["event"] == "mcp_server_away"]
    assert away["last"] == "ImportError: no key [secret], nor [secret]"
    assert away["stderr"].startswith("x" * 500 + "\nTraceback") and len(away["stderr"]) <= 2048
    assert "s3cr3t" not in str(logged)


def test_of_what_a_program_says_the_end_is_kept_and_no_half_of_a_secret() -> None:
    stderr = Stderr(McpServerSpec("s", command="c", env={"K": Secret("s3cr3t-of-mine")}))
    for number in range(1000):
        stderr.add(b"line %d \x1b[31m\n" % number)
    stderr.add(b"y" * 495 + b"s3cr3t-of-mine\n")
    stderr.add(b"\n")
    assert len(stderr.tail) <= KEPT_CHARACTERS and "\x1b" not in stderr.tail
    assert stderr.last == "y" * 495 + "[secr"
