"""The MCP server object: what it offers, served by whichever transport runs it."""

from importlib.metadata import version
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    ListToolsResult,
    PaginatedRequestParams,
)

from kfm_mcp.bridge import Answer, Bridge, Context

INSTRUCTIONS = (
    "Runs durable agent turns on a KFM server. kfm_turn_start hands a message in and answers at once; kfm_turn_wait "
    "waits for the end, 45 s at a time; every answer names the exact next call. Turns go on when nobody waits, and "
    "when the server is restarted."
)
_TTL_MS = 300_000


def build_server(bridge: Bridge) -> Server[Any]:
    """A server of the bridge's tools, for both eras of the protocol."""
    listed = [entry.tool for entry in bridge.tools.values()]

    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    async def call_tool(context: Context, params: CallToolRequestParams) -> Answer:
        answer = await bridge.call(context, params.name, params.arguments)
        if answer is None:
            raise MCPError(
                INVALID_PARAMS, f"There is no tool {params.name!r}; tools/list shows those that exist."
            )
        return answer

    return Server(
        "kfm",
        version=version("kfm-mcp"),
        title="KFM Agent Shell",
        instructions=INSTRUCTIONS,
        cache_hints={"tools/list": CacheHint(ttl_ms=_TTL_MS, scope="public")},
        get_tool_input_schema=lambda name: (
            bridge.tools[name].tool.input_schema if name in bridge.tools else None
        ),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
