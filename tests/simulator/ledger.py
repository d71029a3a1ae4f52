"""Tools of every effect contract, and the ledger outside the journal that they write to."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import ToolCall, ToolError, ToolSpec
from kfm_server.tool_catalogue import ToolEntry

from tests.simulator.loop import HOST, Host

_SCHEMA: dict[str, Any] = {"type": "object"}


@dataclass(slots=True)
class Row:
    """One call of a tool. `done` says that its effect stands; `left` that the call is over."""

    tool: str
    key: str
    attempt: int
    epoch: int
    at: float
    done: bool = False
    left: bool = False
    host: Host | None = None
    pool: str = ""


@dataclass
class Ledger:
    """Every call with an effect, in the order of the starts."""

    rows: list[Row] = field(default_factory=list[Row])
    applied: dict[str, int] = field(default_factory=dict[str, int])
    """Effects by key that the other side of an IDEMPOTENT tool let through."""
    committed: list[str] = field(default_factory=list[str])
    """Keys of TRANSACTIONAL effects, written with their commit."""
    on_start: Callable[[Row], None] = lambda row: None

    def of(self, tool: str) -> dict[str, list[Row]]:
        """Calls of a tool by key."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            if row.tool == tool:
                found.setdefault(row.key, []).append(row)
        return found


@dataclass
class SimTool:
    """One tool of one contract; how a call goes is drawn from the seed, its key and its attempt."""

    name: str
    effect: types.EffectContract
    ledger: Ledger
    seed: int
    compensation: str = ""
    pool: str = ""

    @property
    def spec(self) -> ToolSpec:
        """As the port says."""
        return ToolSpec(
            self.name,
            f"The {self.name} of the simulator.",
            _SCHEMA,
            self.effect,
            self.compensation,
            quick=self.effect == types.EFFECT_CONTRACT_PURE and not self.pool,
        )

    @property
    def entry(self) -> ToolEntry:
        """The catalogue's entry."""
        spec = self.spec
        return ToolEntry(
            spec.name,
            spec.description,
            spec.effect,
            spec.input_schema,
            spec.compensation,
            spec.quick,
            self.pool,
        )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """As the port says. `arguments.fail` in [0, 1] is how often it fails, `arguments.slow` seconds at most."""
        undo = self.name in ("undo", "pool_undo")
        key = arguments["key"] if undo else call.key
        dice = random.Random(f"{self.seed}:{self.name}:{call.key}:{call.attempt}:{call.epoch}")
        row = Row(self.name, key, call.attempt, call.epoch, asyncio.get_running_loop().time())
        row.host, row.pool = HOST.get(), self.pool
        if self.effect != types.EFFECT_CONTRACT_PURE:
            self.ledger.rows.append(row)
            self.ledger.on_start(row)
        given = arguments.get("arguments", arguments)
        call.progress("started")
        slow = float(given.get("slow", 0.0))
        fail = float(given.get("fail", 0.0))
        try:
            if slow and dice.random() < 0.9:
                await asyncio.sleep(dice.random() * slow)
            if dice.random() < fail / 2:
                raise ToolError("it failed before the effect", retryable=dice.random() < 0.8)
            if any(r.key == key and r.epoch > row.epoch for r in self.ledger.rows):
                raise ToolError("fenced: a newer owner was here")  # what the epoch is handed to tools for
            row.done = True
            if self.effect == types.EFFECT_CONTRACT_IDEMPOTENT and not undo:
                self.ledger.applied.setdefault(key, 1)
            if call.connection is not None:
                call.connection.append(key)
            if slow and dice.random() < 0.5:
                await asyncio.sleep(dice.random() * slow)
            if dice.random() < fail / 2:
                raise ToolError("it failed after the effect", retryable=dice.random() < 0.8)
        finally:
            row.left = True
        return {"v": dice.randrange(1000), "key": call.key}


def make_tools(ledger: Ledger, seed: int) -> dict[str, SimTool]:
    """All tools by name."""
    made = (
        SimTool("pure", types.EFFECT_CONTRACT_PURE, ledger, seed),
        SimTool("idem", types.EFFECT_CONTRACT_IDEMPOTENT, ledger, seed),
        SimTool("once", types.EFFECT_CONTRACT_AT_MOST_ONCE, ledger, seed),
        SimTool("tx", types.EFFECT_CONTRACT_TRANSACTIONAL, ledger, seed),
        SimTool("do", types.EFFECT_CONTRACT_COMPENSATABLE, ledger, seed, compensation="undo"),
        SimTool("undo", types.EFFECT_CONTRACT_IDEMPOTENT, ledger, seed),
    )
    return {tool.name: tool for tool in made}


def pool_tools(ledger: Ledger, seed: int, pool: str) -> dict[str, SimTool]:
    """Tools of a worker pool by name, of every contract that a worker may have."""
    made = (
        SimTool("pool_pure", types.EFFECT_CONTRACT_PURE, ledger, seed, pool=pool),
        SimTool("pool_idem", types.EFFECT_CONTRACT_IDEMPOTENT, ledger, seed, pool=pool),
        SimTool("pool_once", types.EFFECT_CONTRACT_AT_MOST_ONCE, ledger, seed, pool=pool),
        SimTool("pool_do", types.EFFECT_CONTRACT_COMPENSATABLE, ledger, seed, "pool_undo", pool),
        SimTool("pool_undo", types.EFFECT_CONTRACT_IDEMPOTENT, ledger, seed, pool=pool),
    )
    return {tool.name: tool for tool in made}
