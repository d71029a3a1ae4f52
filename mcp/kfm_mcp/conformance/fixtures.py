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

from kfm_mcp.bridge import Answer, Bridge, Context
from kfm_mcp.catalogue import Json
from kfm_mcp.conformance import content, tools, turns
from kfm_mcp.tasks import UpdateParams


class Fixtures:
    """Implements `kfm_mcp.server.Extra`."""

    tools = tools.TOOLS + turns.TOOLS
    resources = content.RESOURCES
    templates = content.TEMPLATES
    prompts = content.PROMPTS

    def __init__(self, bridge: Bridge) -> None:
        self._turns = turns.Turns(bridge)

    async def call(self, context: Context, params: CallToolRequestParams) -> Answer | Json | None:
        """Run a fixture; None if the tool is none."""
        if params.name in turns.NAMES:
            return await self._turns.call(context, params)
        run = tools.RUN.get(params.name)
        return None if run is None else await run(context, params)

    async def read(self, uri: str) -> ReadResourceResult | None:
        """Read a fixture; None if the resource is none."""
        return content.read(uri)

    async def prompt(self, params: GetPromptRequestParams) -> GetPromptResult | InputRequiredResult | None:
        """Fill a fixture in; None if the prompt is none."""
        return content.prompt(params)

    def install(self, server: Server[Any]) -> None:
        """The parts of the older era that the bridge itself does not offer, because they are deprecated; and forms that
        the suite fills in as it likes.
        """
        server.add_request_handler("tasks/update", UpdateParams, self._turns.update)

        async def accept(context: Context, params: Any) -> EmptyResult:
            return EmptyResult()

        server.add_request_handler("logging/setLevel", SetLevelRequestParams, accept)
        server.add_request_handler("resources/subscribe", SubscribeRequestParams, accept)
        server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, accept)
