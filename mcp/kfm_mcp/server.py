"""The MCP server object: what it offers, served by whichever transport runs it."""

from importlib.metadata import version
from typing import Any, Protocol

from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CompleteRequestParams,
    CompleteResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    Tool,
)

from kfm_mcp import prompts, resources
from kfm_mcp.bridge import Answer, Bridge, Context
from kfm_mcp.catalogue import Json
from kfm_mcp.tasks import Tasks

INSTRUCTIONS = (
    "Runs durable agent turns on a KFM server. kfm_turn_start hands a message in and answers at once; kfm_turn_wait "
    "waits for the end, 45 s at a time; every answer names the exact next call. Turns go on when nobody waits, and "
    "when the server is restarted."
)
_STABLE = CacheHint(ttl_ms=300_000, scope="public")
_CHANGING = CacheHint(ttl_ms=0, scope="private")


class Extra(Protocol):
    """What is served beside the bridge: each method answers None for what is not its own."""

    tools: list[Tool]
    resources: list[Resource]
    templates: list[ResourceTemplate]
    prompts: list[Prompt]

    async def call(self, context: Context, params: CallToolRequestParams) -> Answer | Json | None:
        """Run a tool; JSON is a task, which `Tasks` began."""
        ...

    async def read(self, uri: str) -> ReadResourceResult | None:
        """Read a resource."""
        ...

    async def prompt(self, params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult | None:
        """Fill a prompt in."""
        ...

    def install(self, server: Server[Any]) -> None:
        """Add handlers."""
        ...


def build_server(bridge: Bridge, extra: Extra | None = None) -> Server[Any]:
    """A server of the bridge's tools, resources and prompts, for both eras of the protocol."""
    listed = [entry.tool for entry in bridge.tools.values()] + (extra.tools if extra else [])
    schemas = {tool.name: tool.input_schema for tool in listed}
    gateway = bridge.gateway
    tasks = Tasks(bridge)

    async def list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=listed)

    async def call_tool(context: Context, params: CallToolRequestParams) -> Answer | Json:
        answer = await tasks.call(context, params)
        if answer is None and extra is not None:
            answer = await extra.call(context, params)
        if answer is None:
            raise MCPError(
                INVALID_PARAMS, f"There is no tool {params.name!r}; tools/list shows those that exist."
            )
        return answer

    async def list_resources(context: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        return ListResourcesResult(
            resources=await resources.recent(gateway) + (extra.resources if extra else [])
        )

    async def list_templates(
        context: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(
            resource_templates=resources.TEMPLATES + (extra.templates if extra else [])
        )

    async def read_resource(context: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        if extra is not None and (found := await extra.read(str(params.uri))):
            return found
        bridge.starts.named(resources.turn_of(str(params.uri)))
        return await resources.read(gateway, str(params.uri))

    async def list_prompts(context: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(prompts=await prompts.listed(gateway) + (extra.prompts if extra else []))

    async def get_prompt(
        context: Context, params: GetPromptRequestParams
    ) -> GetPromptResult | InputRequiredResult:
        if extra is not None and (found := await extra.prompt(params)):
            return found
        return await prompts.get(gateway, params.name, params.arguments)

    async def complete(context: Context, params: CompleteRequestParams) -> CompleteResult:
        return CompleteResult(
            completion=await prompts.complete(gateway, params.argument.name, params.argument.value)
        )

    server = Server(
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
        get_tool_input_schema=schemas.get,
        on_list_tools=list_tools,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_completion=complete,
    )
    # Not as `on_call_tool`, whose type knows no tasks.
    server.add_request_handler("tools/call", CallToolRequestParams, call_tool)
    tasks.install(server)
    # What a client sends back of our state was sealed by us; nothing of ours is in it yet.
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience="kfm"))
    if extra is not None:
        extra.install(server)
    return server
