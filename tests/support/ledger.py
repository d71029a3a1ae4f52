"""Tools of every effect contract that write each call to a file of their own, outside the database.

The file is named by LEDGER_FILE; each line is a JSON object with the tool, the key, the attempt, the epoch and
whether the call had an effect.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import ToolCall, ToolSpec

_SCHEMA = {
    "type": "object",
    "properties": {
        "hold": {"type": "string", "maxLength": 512},
        "note": {"type": "string", "maxLength": 64},
        "arguments": {"type": "object"},
        "key": {"type": "string"},
    },
    "additionalProperties": False,
}


def ledger_file() -> Path:
    """Where calls are written."""
    return Path(os.environ["LEDGER_FILE"])


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Every call, in order; a line cut by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def write(**row: Any) -> None:
    """Append one line and force it to the disk."""
    with ledger_file().open("ab") as file:
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _done(key: str) -> bool:
    """Whether a call with this key had its effect; a long ledger is not read whole for a key that is not in it."""
    path = ledger_file()
    if not path.exists() or json.dumps(key).encode() not in path.read_bytes():
        return False
    return any(r["key"] == key and r["effect"] for r in read_ledger(path))


async def hold(path: str) -> None:
    """Wait until the file exists: lets a test stop the process inside the tool. The tool's deadline bounds it."""
    while path and not Path(path).exists():  # noqa: ASYNC110, ASYNC240 (the gate is a file: another process opens it)
        await asyncio.sleep(0.01)


@dataclass(frozen=True)
class LedgerTool:
    """One tool of one contract."""

    name: str
    effect: types.EffectContract
    compensation: str = ""

    @property
    def spec(self) -> ToolSpec:
        """What it promises."""
        return ToolSpec(self.name, f"writes a line ({self.name})", _SCHEMA, self.effect, self.compensation)

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Write the call, and the effect unless an IDEMPOTENT one with this key was done before."""
        await hold(arguments.get("hold", ""))
        effect = self.effect != types.EFFECT_CONTRACT_IDEMPOTENT or not _done(call.key)
        row = {
            "tool": self.name,
            "key": call.key,
            "attempt": call.attempt,
            "epoch": call.epoch,
            "effect": effect,
        }
        if self.effect == types.EFFECT_CONTRACT_TRANSACTIONAL:
            # "if not exists" alone still fails when two transactions create it at once
            await call.connection.execute("select pg_advisory_xact_lock(71)")
            await call.connection.execute(
                "create table if not exists ledger (key text primary key, attempt int)"
            )
            await call.connection.execute("insert into ledger values ($1, $2)", call.key, call.attempt)
        write(**row, undoes=arguments.get("key", ""))
        return {"text": f"{self.name} done", "attempt": call.attempt}


TOOLS = [
    LedgerTool("ledger_pure", types.EFFECT_CONTRACT_PURE),
    LedgerTool("ledger_idempotent", types.EFFECT_CONTRACT_IDEMPOTENT),
    LedgerTool("ledger_transactional", types.EFFECT_CONTRACT_TRANSACTIONAL),
    LedgerTool("ledger_once", types.EFFECT_CONTRACT_AT_MOST_ONCE),
    LedgerTool("ledger_compensatable", types.EFFECT_CONTRACT_COMPENSATABLE, "ledger_undo"),
    LedgerTool("ledger_undo", types.EFFECT_CONTRACT_IDEMPOTENT),
]
