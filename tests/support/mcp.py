"""MCP clients as hosts run them: the official Python client over both transports."""

import contextlib
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from tests.support.forking import KFM, kfm

STDIO_2026, STDIO_2025, HTTP_2026, HTTP_2025 = (
    "stdio 2026-07-28",
    "stdio 2025-11-25",
    "http 2026-07-28",
    "http 2025-11-25",
)
DOORS = (STDIO_2026, STDIO_2025, HTTP_2026, HTTP_2025)
"""Both transports in both eras of the protocol."""


def command(*arguments: str, **environment: str) -> StdioServerParameters:
    """`kfm mcp` as a host starts it."""
    # The server that it starts is looked for among the children of the process that is asked for here.
    program, *words = KFM if "--start" in arguments else kfm()
    return StdioServerParameters(
        command=program,
        args=[*words, "mcp", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment},
    )


@contextlib.asynccontextmanager
async def connected(door: str, grpc: str, http: str, *arguments: str, **how: Any) -> AsyncGenerator[Client]:
    """A client of a bridge to the server, through one of DOORS; `arguments` are for `kfm mcp`."""
    mode: Any = "legacy" if "2025" in door else "2026-07-28"
    if door.startswith("http"):
        assert not arguments, "the server's own /mcp takes none"
        target: Any = f"http://{http}/mcp"
    else:
        target = stdio_client(command(*arguments, KFM_ENDPOINT=grpc))
    async with Client(target, mode=mode, **how) as client:
        yield client


async def call(client: Client, tool: str, arguments: Mapping[str, Any] | None = None, **how: Any) -> Any:
    """The structured content of a call that went well."""
    answer = await client.call_tool(tool, dict(arguments or {}), **how)
    assert not answer.is_error, answer.content
    return answer.structured_content


async def refusal(client: Client, tool: str, arguments: Mapping[str, Any] | None = None) -> str:
    """The words of a call that failed; it holds nothing else."""
    answer = await client.call_tool(tool, dict(arguments or {}))
    assert answer.is_error
    assert answer.structured_content is None
    return words(answer)


def words(answer: Any) -> str:
    """The text of an answer."""
    return "\n".join(part.text for part in answer.content)
