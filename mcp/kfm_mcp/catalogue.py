"""The tools, as they are offered: generated from the contract, with what only this bridge adds.

Hosts are strict: one schema stays below 1 kB and the list of a group below 8 kB, the additions included.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from mcp_types import Tool, ToolAnnotations
from xenocomm._gen.methods import METHODS

Json = dict[str, Any]

GROUPS = ("steps",)
"""Groups of tools that are off until they are asked for."""
LONGEST_WAIT_S = 45
"""Seconds that one call waits at most: hosts give a call 60."""
_DETAIL: Json = {"type": "string", "enum": ["concise", "full"], "description": "concise if unset"}
_NEXT: Json = {"type": "object"}
_TEXT: Json = {"type": "string"}

_ARGUMENTS: dict[str, Json] = {
    "kfm_turn_start": {
        "idempotency_key": {"type": "string", "description": "Same key, same turn"},
    },
    "kfm_turn_wait": {
        "timeout": {"type": "string", "description": f"At most {LONGEST_WAIT_S}s, which is also the default"},
        "detail": _DETAIL,
        "attached": {"type": "boolean", "description": "Cancelling this call cancels the turn"},
    },
    "kfm_turn_get": {
        "detail": _DETAIL,
        "output_offset": {"type": "integer", "minimum": 0, "description": "Output from this character on"},
    },
    "kfm_turns_list": {"detail": _DETAIL},
    "kfm_turn_events": {"detail": _DETAIL},
}
"""Arguments of the bridge's own beside those of the RPC; an entry of the same name replaces the generated one."""
_RESULTS: dict[str, Json] = {
    "kfm_turn_start": {"next": _NEXT, "note": _TEXT},
    "kfm_turns_list": {"next": _NEXT, "truncated": _TEXT},
    "kfm_turn_events": {"next": _NEXT, "truncated": _TEXT},
    "kfm_personalities_list": {"truncated": _TEXT},
}
_TURN_RESULTS: Json = {"next": {"type": "array", "items": _NEXT}, "truncated": _TEXT}
_SELDOM = ("max_attempts", "max_in_flight", "step_timeout")
"""Limits that are taken but not shown, to stay below a kilobyte."""
_UNSHOWN = (
    # of turns
    "spec",
    "planner",
    "usage",
    "deadline",
    "parent_turn_id",
    "last_sequence",
    # of events
    "event_id",
    "spec_version",
    "trace_id",
    "traceparent",
    "tenant_id",
    "causation_id",
    "attempt",
    "may_ignore",
)
"""Fields of answers that a model seldom needs: full answers have them, the list of tools does not."""
_MORE_WORDS = {
    "kfm_turn_start": " Go on with kfm_turn_wait. The same client's identical call soon after it, before its turn was looked at, "
    "answers with the same turn: for another one give a new idempotency_key.",
    "kfm_turn_wait": f" Waits at most {LONGEST_WAIT_S} s: call again until it is finished.",
}


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """One tool: how it is shown, and the RPC behind it. `own` are the arguments that stay in the bridge."""

    tool: Tool
    rpc: str
    request: str
    group: str
    read_only: bool
    own: Mapping[str, Json] = field(default_factory=dict[str, Json])

    @property
    def name(self) -> str:
        """Its name."""
        return self.tool.name


@lru_cache(maxsize=1)
def entries() -> dict[str, ToolEntry]:
    """Every tool by name, in the order of the contract."""
    raw: list[Json] = json.loads(files("kfm.catalogue").joinpath("mcp_tools.json").read_text())
    return {one["name"]: _entry(one) for one in raw}


def offered(groups: Sequence[str] = (), *, read_only: bool = False) -> dict[str, ToolEntry]:
    """The tools of the default group and of those named; with `read_only` only those that change nothing. ValueError."""
    unknown = sorted(set(groups) - set(GROUPS))
    if unknown:
        raise ValueError(f"no group of tools is called {unknown[0]!r}; there are: {', '.join(GROUPS)}")
    return {
        name: entry
        for name, entry in entries().items()
        if (not entry.group or entry.group in groups) and (entry.read_only or not read_only)
    }


def _entry(raw: Json) -> ToolEntry:
    name: str = raw["name"]
    rpc = ".".join(raw["path"].rpartition(".")[2].split("/"))
    method = METHODS[rpc]
    own = _ARGUMENTS.get(name, {})
    accepts, answers = copy.deepcopy(raw["inputSchema"]), copy.deepcopy(raw["outputSchema"])
    known = set(accepts["properties"])
    accepts["properties"] |= own
    if name == "kfm_turn_start":
        limits = accepts["properties"]["turn"]["properties"]["limits"]["properties"]
        for seldom in _SELDOM:
            limits.pop(seldom)
    for held in answers["properties"].values():
        fields = held.get("items", held).get("properties", {})
        for unshown in _UNSHOWN:
            fields.pop(unshown, None)
    answers["properties"] |= _RESULTS.get(name, _TURN_RESULTS)
    return ToolEntry(
        tool=Tool(
            name=name,
            title=raw["title"],
            description=raw["description"] + _MORE_WORDS.get(name, ""),
            input_schema=accepts,
            output_schema=answers,
            annotations=_annotations(raw["annotations"]),
        ),
        rpc=rpc,
        request=method.request,
        group=raw["group"],
        read_only=method.read_only,
        own={key: schema for key, schema in own.items() if key not in known and key != "idempotency_key"},
    )


def _annotations(hints: Mapping[str, bool]) -> ToolAnnotations:
    """What a host may rely on; the two middle hints mean nothing for a tool that only reads."""
    reads = hints["readOnlyHint"]
    return ToolAnnotations(
        read_only_hint=reads,
        destructive_hint=None if reads else hints["destructiveHint"],
        idempotent_hint=None if reads else hints["idempotentHint"],
        open_world_hint=hints["openWorldHint"],
    )
