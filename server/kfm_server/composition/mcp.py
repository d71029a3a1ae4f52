"""MCP servers whose tools this process uses: each has a task that keeps its session; what it brings comes and goes."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from kfm_server.ports.tools import Tool
from kfm_server.settings import Settings, SettingsError
from kfm_server.tools.registry import ToolRegistry

if TYPE_CHECKING:
    from kfm_server.tools.mcp.server import McpServer

START_SECONDS = 5.0
"""How long a start waits for servers to answer: turns that go on then find their tools. It goes on without them."""


class McpServers:
    """Those of the configuration, if this process runs turns."""

    def __init__(self, servers: "Sequence[McpServer]") -> None:
        self._servers = servers

    def work(self) -> Iterator[tuple[Coroutine[Any, Any, None], str]]:
        """What has to run as long as the process does, and what to call it."""
        for server in self._servers:
            yield server.run(), f"mcp {server.spec.name}"

    async def settle(self) -> None:
        """Wait, bounded, until it is known of each whether it answers."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                for server in self._servers:
                    await server.settled.wait()

    def healthy(self) -> dict[str, bool]:
        """Each as a part of the server's health."""
        return {f"mcp.{s.spec.name}": s.state == "up" and not s.failing for s in self._servers}

    def capabilities(self) -> list[str]:
        """Each as what the server says that it can."""
        return [name if ok else name.replace("mcp.", "mcp-away.", 1) for name, ok in self.healthy().items()]


def open_mcp(
    settings: Settings, tools: ToolRegistry, changed: Callable[[], None], now: Callable[[], float]
) -> McpServers:
    """Make them; nothing is asked before `work` runs. `changed` is called once the tools have. Raises SettingsError."""
    if not settings.mcp_servers or "runtime" not in settings.role:
        return McpServers(())
    try:
        from kfm_server.tools.mcp.server import McpServer  # and the SDK: only for who uses it
    except ImportError as error:
        raise SettingsError(f"mcp_servers: install kfm-server[mcp]: {error}") from None

    def supply(source: str, found: Sequence[Tool]) -> list[str]:
        different, refused = tools.supply(source, found)
        if different:
            changed()
        return refused

    logging.getLogger("mcp.client").setLevel(logging.CRITICAL)  # what it logs whole is told as an error here
    for spec in settings.mcp_servers.values():
        tools.expect(spec.source, f"{spec.name}_")
    ours = version("kfm-server")
    return McpServers([McpServer(spec, ours, now, supply) for spec in settings.mcp_servers.values()])
