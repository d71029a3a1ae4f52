"""One prompt for each personality, which hosts show as a command; and what completes their arguments."""

from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    Completion,
    GetPromptResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)
from xenocomm._gen.errors import XenocommError
from xenocomm._gen.pool import pb

from kfm_mcp.arguments import compact
from kfm_mcp.catalogue import Json
from kfm_mcp.gateway import Gateway

_MOST = 100
"""Values of one completion; the protocol allows no more."""


async def listed(gateway: Gateway) -> list[Prompt]:
    """The prompts; none if no server answers, or one without personalities."""
    return [
        Prompt(
            name=_name(one.name),
            title=f"Ask as {one.name}",
            description=one.description or f"Hand a message to the personality {one.name}.",
            arguments=[PromptArgument(name="message", description="What to ask", required=True)],
        )
        for one in await _personalities(gateway)
    ]


async def get(gateway: Gateway, name: str, arguments: dict[str, str] | None) -> GetPromptResult:
    """One prompt, filled in. MCPError."""
    names = {_name(one.name): one.name for one in await _personalities(gateway)}
    if name not in names:
        raise MCPError(INVALID_PARAMS, f"There is no prompt {name!r}.")
    message = (arguments or {}).get("message")
    if not message:
        raise MCPError(INVALID_PARAMS, "The prompt's argument 'message' is missing.")
    call: Json = {"turn": {"personality": names[name], "input": [{"text": message}]}}
    text = f"Call kfm_turn_start with {compact(call)}, wait for its end with kfm_turn_wait, and show me its answer."
    return GetPromptResult(messages=[PromptMessage(role="user", content=TextContent(text=text))])


async def complete(gateway: Gateway, argument: str, value: str) -> Completion:
    """Ids of the latest turns that begin with the value, for the argument `turn_id`; nothing for others."""
    if argument != "turn_id":
        return Completion(values=[], total=0, has_more=False)
    try:
        answer = await gateway.call(
            "TurnService.ListTurns", pb("kfm.turn.v1.ListTurnsRequest")(page_size=_MOST)
        )
    except XenocommError:
        return Completion(values=[], total=0, has_more=False)
    found = [turn.turn_id for turn in answer.turns if turn.turn_id.startswith(value)]
    return Completion(values=found, has_more=bool(answer.next_page_token))


async def _personalities(gateway: Gateway) -> list[Any]:
    request = pb("kfm.personality.v1.ListPersonalitiesRequest")()
    try:
        answer = await gateway.call("PersonalityService.ListPersonalities", request)
    except XenocommError:
        return []
    return list(answer.personalities)


def _name(personality: str) -> str:
    return "ask_" + personality.replace("-", "_")
