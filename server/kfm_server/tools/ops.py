"""Reads of this system by its own API: runs, dead letters, costs, pools and settings. They change nothing.

Reserved: only a personality that names them has them. What they show holds words of users, models and tools.
"""

import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from kfm.type.v1 import type_pb2 as types

from kfm_server.context import ExecutionContext
from kfm_server.ports.tools import Tool, ToolCall, ToolError, ToolSpec
from kfm_server.tools import ops_views as views

Json = dict[str, Any]
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Json]]
"""Makes an RPC, such as `TurnService.GetTurn`, of these fields and answers its message as JSON. Raises ToolError."""
Body = Callable[[Ask, Json], Awaitable[Json]]

MAX_ROWS: Final = 100
"""Most rows of one answer."""
MAX_LOOKED_AT: Final = 500
"""Most turns that one call looks at."""
MAX_OPENED: Final = 100
"""Most turns whose steps one call reads."""
PAGE: Final = 100
TENANT: Final = ExecutionContext().tenant_id
"""Whose things the API shows to the server's own token."""
_TURN: Final[Json] = {"type": "string", "pattern": "^turn_[0-9A-Za-z]{1,60}$"}
_HOURS: Final[Json] = {
    "type": "number",
    "exclusiveMinimum": 0,
    "maximum": 24 * 366,
    "description": "Only turns submitted in the last so many hours.",
}
_STATES: Final = ("queued", "running", "waiting", "finished")
_OUTCOMES: Final = ("succeeded", "failed", "cancelled", "timed_out")


class OpsTool:
    """One of them. IDEMPOTENT and not PURE: what it reads changes, and reading again does no harm."""

    def __init__(self, name: str, description: str, properties: Json, required: Sequence[str], body: Body):
        self.spec = ToolSpec(
            name=name,
            description=description,
            input_schema={
                "type": "object",
                "properties": properties,
                "required": list(required),
                "additionalProperties": False,
            },
            effect=types.EFFECT_CONTRACT_IDEMPOTENT,
            reserved=True,
        )
        self._body = body
        self._ask: Ask | None = None

    def bind(self, ask: Ask) -> None:
        """How to ask. Tools are made before there is a door."""
        self._ask = ask

    async def call(self, arguments: Json, call: ToolCall) -> Json:
        """Bounded JSON; what was left out is counted. Raises ToolError."""
        if self._ask is None:
            raise ToolError("This process has no API of its own to ask.")
        if call.tenant_id != TENANT:
            raise ToolError("This tool reads what the server's own token may see, which is another tenant's.")
        return await self._body(self._ask, arguments)


def ops_tools() -> list[OpsTool]:
    """All of them, not bound yet."""
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": 20}
    return [
        OpsTool(
            "runs_list",
            "Lists runs (turns), newest first, without their steps, and counts all that fit by their error. `now` is the time. "
            f"With `outcome` or `hours` the newest {MAX_LOOKED_AT} are looked through.",
            {
                "hours": _HOURS,
                "state": {"enum": list(_STATES)},
                "outcome": {"enum": list(_OUTCOMES)},
                "session_id": {"type": "string", "pattern": "^ses_[0-9A-Za-z_-]{1,60}$"},
                "limit": limit,
            },
            (),
            _runs_list,
        ),
        OpsTool(
            "run_show",
            "Shows one run: its message, plan, every attempt with its error, what it used, its answer, and what it waits for.",
            {"turn_id": _TURN},
            ("turn_id",),
            _run_show,
        ),
        OpsTool(
            "dead_letters_list",
            "Lists messages that a consumer could not take, oldest first; each may hold up a session.",
            {"group": {"type": "string", "maxLength": 64}, "limit": limit},
            (),
            _dead_letters_list,
        ),
        OpsTool(
            "costs_summary",
            f"Sums tokens and US dollars of the newest turns by personality and by model: of 100, or of what `turns` or `hours` "
            f"say, at most {MAX_LOOKED_AT}. Models are read from at most {MAX_OPENED} turns. `now` is the time.",
            {"turns": {"type": "integer", "minimum": 1, "maximum": MAX_LOOKED_AT}, "hours": _HOURS},
            (),
            _costs_summary,
        ),
        OpsTool(
            "pools_list",
            "Lists worker pools with what waits and runs there, and the workers connected to this process.",
            {},
            (),
            _pools_list,
        ),
        OpsTool(
            "config_show",
            "Shows the settings in force and where each comes from, without secrets.",
            {"prefix": {"type": "string", "maxLength": 64, "description": "for example: limits."}},
            (),
            _config_show,
        ),
    ]


def bind_ops(tools: Mapping[str, Tool], ask: Ask) -> None:
    """Give those among a server's tools the way to its API."""
    for tool in tools.values():
        if isinstance(tool, OpsTool):
            tool.bind(ask)


async def _runs_list(ask: Ask, arguments: Json) -> Json:
    fields: Json = {"session_id": arguments.get("session_id", "")}
    if "state" in arguments:
        fields["state"] = 1 + _STATES.index(arguments["state"])
    limit, outcome = arguments.get("limit", 20), arguments.get("outcome")
    most = MAX_LOOKED_AT if outcome or "hours" in arguments else limit
    now, found, more = await _turns(ask, fields, most, arguments.get("hours"))
    rows = [views.run(turn) for turn in found]
    fitting = [row for row in rows if outcome in (None, row.get("outcome"))]
    kept, left_out = views.bounded(fitting[:limit])
    return {
        "notice": views.NOTICE,
        "now": now,
        "by_error": views.by_error(fitting),
        "runs": kept,
        "left_out": left_out + max(0, len(fitting) - limit),
        "looked_at": len(rows),
        "there_are_more": more,
    }


async def _run_show(ask: Ask, arguments: Json) -> Json:
    named = {"turn_id": arguments["turn_id"]}
    turn = (await ask("TurnService.GetTurn", named)).get("turn", {})
    explained = {} if "outcome" in turn else await ask("TurnService.ExplainTurn", named)
    return views.run_in_full(turn, explained.get("waits", []))


async def _dead_letters_list(ask: Ask, arguments: Json) -> Json:
    limit = arguments.get("limit", 20)
    found, more = await _pages(
        ask, "AdminService.ListDeadLetters", "dead_letters", {"group": arguments.get("group", "")}, limit
    )
    kept, left_out = views.bounded([views.dead_letter(row) for row in found])
    return {"notice": views.NOTICE, "dead_letters": kept, "left_out": left_out, "there_are_more": more}


async def _costs_summary(ask: Ask, arguments: Json) -> Json:
    most = arguments.get("turns", MAX_LOOKED_AT if "hours" in arguments else 100)
    now, turns, more = await _turns(ask, {}, most, arguments.get("hours"))
    asking = [turn for turn in turns if int(turn.get("usage", {}).get("model_calls", 0))]
    opened: list[Json] = []
    for turn in asking[:MAX_OPENED]:
        opened.append((await ask("TurnService.GetTurn", {"turn_id": turn["turn_id"]})).get("turn", {}))
    return views.costs(turns, opened, len(asking) - len(opened)) | {"now": now, "there_are_more": more}


async def _pools_list(ask: Ask, arguments: Json) -> Json:
    found = await ask("AdminService.ListWorkers", {})
    pools, pools_left_out = views.bounded([views.plain(pool) for pool in found.get("pools", [])[:MAX_ROWS]])
    workers, left_out = views.bounded([views.plain(row) for row in found.get("workers", [])[:MAX_ROWS]])
    return {"pools": pools, "workers": workers, "left_out": pools_left_out + left_out}


async def _config_show(ask: Ask, arguments: Json) -> Json:
    found = await ask("AdminService.GetConfig", {})
    prefix = arguments.get("prefix", "")
    rows = [views.setting(v) for v in found.get("values", []) if v.get("name", "").startswith(prefix)]
    kept, left_out = views.bounded(rows)
    return {"settings": kept, "left_out": left_out, "last_error": found.get("last_error", "")[:500]}


async def _turns(ask: Ask, fields: Json, most: int, hours: float | None) -> tuple[str, list[Json], bool]:
    """The time, at most so many turns of the last hours, newest first, and whether there are more of them."""
    now = datetime.now(UTC)
    since = now - timedelta(hours=hours) if hours else None

    def fits(turn: Json) -> bool:
        return since is None or datetime.fromisoformat(turn["submitted_at"]) >= since

    found, more = await _pages(ask, "TurnService.ListTurns", "turns", fields, most, fits)
    return now.isoformat(timespec="seconds"), found, more


async def _pages(
    ask: Ask, rpc: str, name: str, fields: Json, most: int, fits: Callable[[Json], bool] = lambda _: True
) -> tuple[list[Json], bool]:
    """At most so many rows up to the first that does not fit, and whether there are more that do."""
    rows: list[Json] = []
    token = ""
    while True:
        answer = await ask(rpc, {**fields, "page_size": min(PAGE, most - len(rows)), "page_token": token})
        page: list[Json] = answer.get(name, [])
        fitting = list(itertools.takewhile(fits, page))
        rows += fitting
        if len(fitting) < len(page):
            return rows, False
        token = answer.get("next_page_token", "")
        if not token or len(rows) >= most:
            return rows[:most], bool(token)
