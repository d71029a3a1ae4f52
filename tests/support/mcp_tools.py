"""An MCP server whose tools are good, slow, hostile or deadly: `python -m tests.support.mcp_tools DIRECTORY [PORT]`.

Over its standard streams, or over HTTP where a port is given. What it did stands in DIRECTORY/ledger.
"""

import asyncio
import base64
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.subscriptions import ToolsListChanged
from mcp_types import CallToolResult, ImageContent, ListToolsResult, TextContent, Tool, ToolAnnotations

ROOT = Path(__file__).parents[2]
OBJECT: dict[str, Any] = {"type": "object"}
READS = ToolAnnotations(read_only_hint=True)


def _text(name: str, kind: str = "string") -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": kind}},
        "required": [name],
        "additionalProperties": False,
    }


def _doubling() -> dict[str, Any]:
    """A few lines that take years to check."""
    steps = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    return {"type": "object", "$ref": "#/$defs/d0", "$defs": {**steps, "d40": {"type": "object"}}}


GOOD = [
    Tool(name="echo", description="Says it again.\x07", input_schema=_text("text"), annotations=READS),
    Tool(name="slow", description="Never answers.", input_schema=OBJECT, annotations=READS),
    Tool(name="fails", description="Fails.", input_schema=OBJECT, annotations=READS),
    Tool(name="picture", description="Shows something.", input_schema=OBJECT, annotations=READS),
    Tool(name="huge", description="Says a lot.", input_schema=_text("bytes", "integer"), annotations=READS),
    Tool(name="send", description="Sends a letter, and says nothing.", input_schema=_text("to")),
    Tool(name="Get-Time.v2", description="Tells the time.", input_schema=OBJECT, annotations=READS),
    Tool(name="grow", description="Makes the tool late.", input_schema=OBJECT, annotations=READS),
    Tool(name="die", description="Ends the server.", input_schema=OBJECT, annotations=READS),
]
HOSTILE = [
    Tool(name="loops", description="x", input_schema=_doubling()),
    Tool(name="wide", description="x", input_schema={"type": "object", "title": "x" * 70_000}),
    Tool(
        name="wrong",
        description="x",
        input_schema={"type": "object", "properties": {"a": {"type": "objekt"}}},
    ),
    Tool(
        name="remote", description="x", input_schema={"type": "object", "$ref": "http://127.0.0.1:1/s.json"}
    ),
    Tool(name="n" * 80, description="x", input_schema=OBJECT),
    Tool(name="ECHO", description="x", input_schema=OBJECT),
    Tool(name="long", description="y" * 10_000, input_schema=OBJECT),
]
LATE = Tool(name="late", description="Came later.", input_schema=OBJECT, annotations=READS)


class Behaviour:
    """What the tools do."""

    def __init__(self, directory: Path) -> None:
        self.ledger = directory / "ledger"
        self.tools = [*GOOD, *HOSTILE]
        self.bus = InMemorySubscriptionBus()

    async def list_tools(self, context: Any, params: Any) -> ListToolsResult:
        """All of them, in two pages."""
        half = len(self.tools) // 2
        if params is None or not params.cursor:
            return ListToolsResult(
                tools=self.tools[:half], next_cursor="more", ttl_ms=0, cache_scope="public"
            )
        return ListToolsResult(tools=self.tools[half:], ttl_ms=0, cache_scope="public")

    async def call(self, context: Any, params: Any) -> CallToolResult:
        """One of them."""
        name, arguments = params.name, params.arguments or {}
        with self.ledger.open("a") as ledger:
            ledger.write(f"{name}\n")
        if name == "die":
            os._exit(3)
        if name in ("slow", "send"):
            await asyncio.Event().wait()
        if name == "fails":
            return CallToolResult(content=[TextContent(text="The disk is full.\x1b[31m")], is_error=True)
        if name == "picture":
            picture = base64.b64encode(b"png").decode()
            return CallToolResult(
                content=[TextContent(text="Here."), ImageContent(data=picture, mime_type="image/png")]
            )
        if name == "huge":
            return _said("x" * arguments["bytes"])
        if name == "grow":
            self.tools = [*GOOD[1:], LATE]
            await self.bus.publish(ToolsListChanged())
            await context.session.send_tool_list_changed()
        if name == "echo":
            said = f"{arguments['text']}\x00"
            return CallToolResult(content=[TextContent(text=said)], structured_content={"said": said})
        return _said("done")


def _said(text: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=text)])


def build(directory: Path) -> Server[Any]:
    """The server."""
    behaviour = Behaviour(directory)
    return Server(
        "hostile",
        version="1",
        on_list_tools=behaviour.list_tools,
        on_call_tool=behaviour.call,
        on_subscriptions_listen=ListenHandler(behaviour.bus),
    )


async def _over_stdio(server: Server[Any]) -> None:
    async with stdio_server() as (incoming, outgoing):
        told = server.create_initialization_options(NotificationOptions(tools_changed=True))
        await server.run(incoming, outgoing, told)


class HttpServer:
    """The server over HTTP, in a process of its own, on a port that stays the same when it is started again."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "tests.support.mcp_tools", str(self._directory), str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT)
        until = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < until and self._process.poll() is None, "it does not listen"
                try:
                    self._process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue

    def stop(self) -> None:
        """kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)


if __name__ == "__main__":
    made = build(Path(sys.argv[1]))
    if len(sys.argv) > 2:
        uvicorn.run(made.streamable_http_app(), port=int(sys.argv[2]), log_level="error")
    else:
        asyncio.run(_over_stdio(made))
