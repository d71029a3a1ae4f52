"""The fixtures as the server takes them: beside the bridge's own tools, resources and prompts, on the same way."""

from typing import Any

from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    ReadResourceResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from kfm_mcp.bridge import Answer, Context
from kfm_mcp.conformance import content, tools


class Fixtures:
    """Implements `kfm_mcp.server.Extra`."""

    tools = tools.TOOLS
    resources = content.RESOURCES
    templates = content.TEMPLATES
    prompts = content.PROMPTS

    async def call(self, context: Context, params: CallToolRequestParams) -> Answer | None:
        """Run a fixture; None if the tool is none."""
        run = tools.RUN.get(params.name)
        return None if run is None else await run(context, params)

    async def read(self, uri: str) -> ReadResourceResult | None:
        """Read a fixture; None if the resource is none."""
        return content.read(uri)

    async def prompt(self, params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult | None:
        """Fill a fixture in; None if the prompt is none."""
        return content.prompt(params)

    def install(self, server: Server[Any]) -> None:
        """The parts of the older era that the bridge itself does not offer, because they are deprecated."""

        async def accept(context: Context, params: Any) -> EmptyResult:
            return EmptyResult()

        server.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
        server.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
        server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)
