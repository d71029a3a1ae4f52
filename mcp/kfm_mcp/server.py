"""The MCP server object: what it offers, served by whichever transport runs it."""

from importlib.metadata import version
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CompleteRequestParams,
    CompleteResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

from kfm_mcp import prompts, resources
from kfm_mcp.bridge import Answer, Bridge, Context

INSTRUCTIONS = (
    "Runs durable agent turns on a KFM server. kfm_turn_start hands a message in and answers at once; kfm_turn_wait "
    "waits for the end, 45 s at a time; every answer names the exact next call. Turns go on when nobody waits, and "
    "when the server is restarted."
)
_STABLE = CacheHint(ttl_ms=300_000, scope="public")
_CHANGING = CacheHint(ttl_ms=0, scope="private")


def build_server(bridge: Bridge) -> Server[Any]:
    """A server of the bridge's tools, resources and prompts, for both eras of the protocol."""
    listed = [entry.tool for entry in bridge.tools.values()]
    gateway = bridge.gateway

    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    async def call_tool(context: Context, params: CallToolRequestParams) -> Answer:
        answer = await bridge.call(context, params)
        if answer is None:
            raise MCPError(
                INVALID_PARAMS, f"There is no tool {params.name!r}; tools/list shows those that exist."
            )
        return answer

    async def list_resources(context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        return ListResourcesResult(resources=await resources.recent(gateway))

    async def list_templates(
        context: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=resources.TEMPLATES)

    async def read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        return await resources.read(gateway, str(params.uri))

    async def list_prompts(context: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(prompts=await prompts.listed(gateway))

    async def get_prompt(context: Context, params: GetPromptRequestParams) -> GetPromptResult:
        return await prompts.get(gateway, params.name, params.arguments)

    async def complete(context: Context, params: CompleteRequestParams) -> CompleteResult:
        return CompleteResult(
            completion=await prompts.complete(gateway, params.argument.name, params.argument.value)
        )

    return Server(
        "kfm",
        version=version("kfm-mcp"),
        title="KFM Agent Shell",
        instructions=INSTRUCTIONS,
        cache_hints={
            "tools/list": _STABLE,
            "resources/templates/list": _STABLE,
            "prompts/list": _CHANGING,
            "resources/list": _CHANGING,
            "resources/read": _CHANGING,
        },
        get_tool_input_schema=lambda name: (
            bridge.tools[name].tool.input_schema if name in bridge.tools else None
        ),
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
    )
