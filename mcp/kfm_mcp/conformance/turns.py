"""Tools of the suite for tasks. All but one start real turns; their server needs the tool `conformance_slow` of
tests/mcp_conformance.
"""

import json
import secrets
from typing import Any

from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ElicitResult,
    InputRequiredResult,
    TextContent,
    Tool,
)

from kfm_mcp.bridge import Answer, Bridge, Context
from kfm_mcp.catalogue import Json
from kfm_mcp.conformance.content import form
from kfm_mcp.tasks import Tasks, UpdateParams, declared, needed

_FIELDS: dict[str, dict[str, str]] = {
    "greet": {"name": "string"},
    "slow_compute": {"seconds": "number", "label": "string"},
    "failing_job": {},
    "protocol_error_job": {},
    "confirm_delete": {"filename": "string"},
    "multi_input": {},
    "test_tool_with_task": {},
}
NAMES = frozenset(_FIELDS)
TOOLS = [
    Tool(
        name=name,
        description=f"Fixture {name} of the conformance suite.",
        input_schema={
            "type": "object",
            "properties": {field: {"type": kind} for field, kind in fields.items()},
        },
    )
    for name, fields in _FIELDS.items()
]


class Turns:
    """The fixtures, by way of the bridge's own tools."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._tasks = Tasks(bridge)

    async def call(self, context: Context, params: CallToolRequestParams) -> Answer | Json | None:
        """Run one."""
        given = params.arguments or {}
        match params.name:
            case "greet":
                return CallToolResult(content=[TextContent(text=f"Hello, {given.get('name')}!")])
            case "slow_compute":
                return await self._turn(context, _slow(**given))
            case "failing_job":
                needed(context)
                return await self._turn(context, _slow(seconds=1, fail=True))
            case "protocol_error_job":
                return await self._turn(context, {"key": "none", "kind": "tool", "tool": "there_is_none"})
            case "confirm_delete":
                return await self._turn(context, _question("sure", f"Delete {given.get('filename')}?"))
            case "multi_input":
                return await self._turn(context, _question("name", "Who?"), _question("sure", "Sure?"))
            case _:
                return await self._composed(context, params)

    async def update(self, context: Context, params: UpdateParams) -> Json:
        """tasks/update; the suite fills in fields of its own, which are the answer then."""
        for given in params.input_responses.values():
            if "content" in given:
                given["content"] = {"answer": json.dumps(given["content"])}
        return await self._tasks.update(context, params)

    async def _composed(self, context: Context, params: CallToolRequestParams) -> Answer | Json | None:
        needed(context)
        said = (params.input_responses or {}).get("user_name")
        if not isinstance(said, ElicitResult):
            return InputRequiredResult(
                input_requests={"user_name": form("What is your name?", name="string")}
            )
        return await self._turn(context, _slow(label=str((said.content or {}).get("name"))))

    async def _turn(self, context: Context, *steps: Json) -> Answer | Json | None:
        plan = json.dumps({"plan": {"steps": steps}})
        arguments: Json = {
            "turn": {"input": [{"data_json": plan}]},
            "idempotency_key": secrets.token_hex(16),
        }
        begun = await self._tasks.call(context, _call("kfm_turn_start", arguments))
        if declared(context) or not isinstance(begun, CallToolResult):
            return begun
        turn_id = (begun.structured_content or {}).get("turn_id")
        return await self._bridge.call(context, _call("kfm_turn_wait", {"turn_id": turn_id}))


def _slow(**arguments: Any) -> Json:
    return {"key": "slow", "kind": "tool", "tool": "conformance_slow", "arguments": arguments}


def _question(key: str, words: str) -> Json:
    return {"key": key, "kind": "human", "instructions": words}


def _call(tool: str, arguments: Json) -> CallToolRequestParams:
    return CallToolRequestParams(name=tool, arguments=arguments)
