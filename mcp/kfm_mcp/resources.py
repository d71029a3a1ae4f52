"""Turns as resources, for hosts that let people attach them: `kfm://turns/{turn_id}` and its events."""

import json
import re

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)
from xenocomm._gen.errors import InvalidArgument, TurnNotFound, XenocommError
from xenocomm._gen.pool import pb

from kfm_mcp import failures
from kfm_mcp.arguments import as_json
from kfm_mcp.gateway import Gateway
from kfm_mcp.sizes import fit

RESOURCE_TOKENS = 20_000
"""Tokens of one resource; what is longer is cut, and says so."""
_URI = re.compile(r"kfm://turns/(turn_[0-9A-Za-z]{1,60})(/events)?")
_RECENT = 10

TEMPLATES = [
    ResourceTemplate(
        name="turn",
        title="A turn",
        uri_template="kfm://turns/{turn_id}",
        description="A turn as JSON: its plan, every attempt, its output.",
        mime_type="application/json",
    ),
    ResourceTemplate(
        name="turn_events",
        title="Events of a turn",
        uri_template="kfm://turns/{turn_id}/events",
        description="The durable events of a turn as JSON, in order.",
        mime_type="application/json",
    ),
]


async def recent(gateway: Gateway) -> list[Resource]:
    """The latest turns, newest first; none if no server answers."""
    request = pb("kfm.turn.v1.ListTurnsRequest")(page_size=_RECENT)
    try:
        answer = await gateway.call("TurnService.ListTurns", request)
    except XenocommError:
        return []
    return [
        Resource(
            uri=f"kfm://turns/{turn.turn_id}",
            name=turn.turn_id,
            title=" ".join(part.text for part in turn.spec.input)[:80] or turn.turn_id,
            description=f"A turn of session {turn.session_id}.",
            mime_type="application/json",
        )
        for turn in answer.turns
    ]


def turn_of(uri: str) -> str:
    """The id of the turn that a resource is of; empty if it is of none."""
    found = _URI.fullmatch(uri)
    return found[1] if found is not None else ""


async def read(gateway: Gateway, uri: str) -> ReadResourceResult:
    """One resource. MCPError for one that does not exist."""
    found = _URI.fullmatch(uri)
    if found is None:
        raise _missing(uri)
    turn_id, events = found[1], bool(found[2])
    rpc = "ListTurnEvents" if events else "GetTurn"
    request = pb(f"kfm.turn.v1.{rpc}Request")(turn_id=turn_id)
    try:
        answer = as_json(await gateway.call(f"TurnService.{rpc}", request))
    except (TurnNotFound, InvalidArgument):
        raise _missing(uri) from None
    except XenocommError as error:
        raise MCPError(INTERNAL_ERROR, failures.words(error)) from None
    body, shortened = fit(answer, RESOURCE_TOKENS)
    if shortened:
        tool = "kfm_turn_events" if events else "kfm_turn_get"
        body["truncated"] = f"Long fields are cut; {tool} gives the rest in pages."
    text = json.dumps(body, indent=1, ensure_ascii=False)
    return ReadResourceResult(
        contents=[TextResourceContents(uri=uri, mime_type="application/json", text=text)]
    )


def _missing(uri: str) -> MCPError:
    return MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})
