"""Counts what a kill did: from the journal, the ledgers, and what watching clients saw."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from kfm.catalogue.events import unpack
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev

from tests.faults.matrix.pool_tools import CONTRACTS
from tests.faults.work import Watched
from tests.support.ledger import read_ledger


@dataclass
class Counts:
    """`duplicates`: effects beyond what a contract allows, by contract. `repeats`: calls that a contract lets come again."""

    turns: int = 0
    duplicates: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CONTRACTS.values(), 0))
    repeats: int = 0
    gaps: int = 0
    graced: set[str] = field(default_factory=set[str])
    """Turns that waited until a step, which may not start twice, had surely ended."""
    missing: int = 0
    """Steps that are recorded as done, and have left no effect."""


def contract_of(tool: str) -> str:
    """The contract's name."""
    return CONTRACTS[tool.partition("_")[2]]


async def count(dsn: str, ledgers: Iterable[Path], watched: Collection[Watched]) -> Counts:
    """What became of these turns."""
    found = Counts(turns=len(watched))
    connection: Any = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            'select turn_id, sequence, envelope from kfm.journal where turn_id = any($1) order by partition, "offset"',
            [w.turn_id for w in watched],
        )
        has_table = await connection.fetchval("select to_regclass('ledger')")
        committed = [r["key"] for r in await connection.fetch("select key from ledger")] if has_table else []
    finally:
        await connection.close()
    stored: dict[str, list[int]] = defaultdict(list)
    succeeded: set[str] = set()
    by_tools: set[str] = set()
    for row in rows:
        stored[row["turn_id"]].append(row["sequence"])
        event = unpack(envelope_pb2.Envelope.FromString(row["envelope"]))
        if isinstance(event, ev.StepEvent) and event.tool:
            by_tools.add(event.key)
        if isinstance(event, ev.TurnStateEvent) and event.wait_reason == ev.WAIT_REASON_SETTLE_GRACE:
            found.graced.add(row["turn_id"])
        if isinstance(event, ev.StepResultEvent) and _succeeded(event):
            succeeded.add(f"{row['turn_id']}:{event.step_key}")
    for w in watched:
        found.gaps += _gaps(stored[w.turn_id]) + _gaps(w.sequences)
    mine = tuple(f"{w.turn_id}:" for w in watched)
    calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for ledger in ledgers:
        for call in read_ledger(ledger):
            if call["key"].startswith(mine):
                calls[call["key"]].append(call)
    undone = Counter(call["undoes"] for made in calls.values() for call in made if call["effect"])
    for key, made in calls.items():
        contract = contract_of(made[0]["tool"])
        found.duplicates[contract] += _beyond(contract, key, made, committed.count(key), undone[key])
        found.repeats += len(made) - 1
    found.missing = len((succeeded & by_tools) - calls.keys())
    return found


def _succeeded(event: ev.StepResultEvent) -> bool:
    return event.status == ev.STEP_STATUS_SUCCEEDED and not event.compensation


async def story(dsn: str, turn_id: str) -> str:
    """What the journal says of a turn, an event a line: to see why it was lost."""
    connection: Any = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch(
            "select epoch, envelope from kfm.journal where turn_id = $1 order by sequence", turn_id
        )
    finally:
        await connection.close()
    lines: list[str] = []
    for row in rows:
        envelope = envelope_pb2.Envelope.FromString(row["envelope"])
        event: Any = unpack(envelope)
        at = envelope.timestamp.ToDatetime().strftime("%T.%f")[:-3]
        facts = [f"{name}={getattr(event, name)}" for name in _FACTS if getattr(event, name, "")]
        lines.append(
            f"{at} epoch={row['epoch']} {envelope.type} {' '.join(facts)} attempt={envelope.attempt}"
        )
    return "\n    ".join(lines)


_FACTS = ("step_key", "tool", "pool", "status", "worker", "synthesised", "change", "wait_reason")


def _gaps(sequences: list[int]) -> int:
    return sum(at != expected for expected, at in enumerate(sequences, 1))


def _beyond(contract: str, key: str, made: list[dict[str, Any]], committed: int, undone: int) -> int:
    """How many effects more than the contract allows."""
    match contract:
        case "AT_MOST_ONCE":
            return len(made) - 1
        case "IDEMPOTENT":
            return max(0, sum(call["effect"] for call in made) - 1)
        case "TRANSACTIONAL":
            return max(0, committed - 1)
        case "COMPENSATABLE":
            return max(0, len(made) - 1 - undone)
        case _:
            return 0
