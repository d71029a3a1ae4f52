"""Reads everything back after the faults have stopped, and says what is wrong with it.

The numbers I1 to I7 are the invariants of the fault suite (docs/requirements.md, row R8).
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import asyncpg
from kfm.catalogue.events import unpack
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm_server.turns.fold import begin, fold_turn
from kfm_server.turns.state import Turn

from tests.support.ledger import read_ledger

_PHASES = {
    api.TURN_STATE_QUEUED: "queued",
    api.TURN_STATE_RUNNING: "running",
    api.TURN_STATE_WAITING: "waiting",
    api.TURN_STATE_FINISHED: "finished",
}


async def audit(dsn: str, ledger: Path, seen: dict[str, list[int]] | None = None) -> dict[str, Turn]:
    """Check journal, projection, ledger and what clients saw; answers the folded turns. Raises AssertionError."""
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch('select * from journal order by partition, "offset"')
        projection = {r["turn_id"]: r for r in await connection.fetch("select * from turns")}
        has_table = await connection.fetchval("select to_regclass('ledger')")
        committed = [r["key"] for r in await connection.fetch("select key from ledger")] if has_table else []
    finally:
        await connection.close()
    by_turn = _turns(rows)
    for turn_id, events in by_turn.items():
        _check_answered(turn_id, events)
    turns = {turn_id: _fold(events) for turn_id, events in by_turn.items()}
    for turn_id, turn in turns.items():
        row = projection.get(turn_id)
        assert row is not None, f"I6: {turn_id} is not in the projection"
        found = row["phase"] if "phase" in row else row["class"]
        assert found == _PHASES[turn.phase], f"I6: {turn_id} is {turn.phase} but projected as {found}"
    for turn_id, sequences in (seen or {}).items():
        assert sequences == list(range(1, len(sequences) + 1)), f"I7: {turn_id}: {sequences}"
        stored = [e.sequence for e, _ in by_turn[turn_id]]
        assert sequences == stored[: len(sequences)], (
            f"I4: a client saw what is not in the journal: {turn_id}"
        )
    _check_ledger(read_ledger(ledger), committed)
    return turns


Event = tuple[envelope_pb2.Envelope, Any]


def _turns(rows: list[Any]) -> dict[str, list[Event]]:
    offsets: dict[int, int] = defaultdict(int)
    epochs: dict[int, int] = defaultdict(int)
    by_turn: dict[str, list[Event]] = defaultdict(list)
    for row in rows:
        partition = row["partition"]
        assert row["offset"] == offsets[partition] + 1, (
            f"I2: partition {partition} has a gap before {row['offset']}"
        )
        offsets[partition] = row["offset"]
        assert row["epoch"] >= epochs[partition], f"I5: epoch {row['epoch']} wrote after {epochs[partition]}"
        epochs[partition] = row["epoch"]
        if row["turn_id"]:
            envelope = envelope_pb2.Envelope.FromString(row["envelope"])
            by_turn[row["turn_id"]].append((envelope, unpack(envelope)))
    for turn_id, events in by_turn.items():
        sequences = [e.sequence for e, _ in events]
        assert sequences == list(range(1, len(events) + 1)), f"I2: {turn_id}: {sequences}"
    return by_turn


def _fold(events: list[Event]) -> Turn:
    turn = begin(*events[0])
    for envelope, payload in events[1:]:
        turn = fold_turn(turn, envelope, payload)
    return turn


def _check_answered(turn_id: str, events: list[Event]) -> None:
    """A finished turn has a result for every dispatch that was not superseded, and one success for a step."""
    successes: dict[str, int] = defaultdict(int)
    open_dispatch: dict[str, int] = {}
    finished = False
    for envelope, payload in events:
        assert not finished, f"I1: {turn_id} goes on after its end"
        if isinstance(payload, ev.StepEvent):
            open_dispatch[payload.step_key] = envelope.attempt
        elif isinstance(payload, ev.StepResultEvent):
            open_dispatch.pop(payload.step_key, None)
            if payload.status == ev.STEP_STATUS_SUCCEEDED and not payload.compensation:
                successes[payload.step_key] += 1
        elif isinstance(payload, ev.TurnStateEvent) and payload.change == ev.TURN_CHANGE_FINISHED:
            finished = True
            assert not open_dispatch, f"{turn_id} closed with unanswered calls: {open_dispatch}"
    repeated = {k: n for k, n in successes.items() if n > 1}
    assert not repeated, f"I3: finished steps ran again: {turn_id} {repeated}"


def _check_ledger(calls: list[dict[str, Any]], committed: list[str]) -> None:
    by_key: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for call in calls:
        by_key[call["key"]].append(call)
    for key, made in by_key.items():
        match made[0]["tool"]:
            case "ledger_once":
                assert len(made) == 1, f"I3: AT_MOST_ONCE started {len(made)} times: {key}"
            case "ledger_idempotent" | "ledger_undo":
                effects = sum(c["effect"] for c in made)
                assert effects == 1, f"I3: IDEMPOTENT had {effects} effects: {key}"
            case "ledger_transactional":
                assert committed.count(key) <= 1, f"I3: TRANSACTIONAL committed twice: {key}"
            case _:
                pass
    done = {c["undoes"] for c in calls if c["tool"] == "ledger_undo"}
    for key, made in by_key.items():
        if made[0]["tool"] == "ledger_compensatable" and len(made) > 1:
            assert key in done, f"I3: COMPENSATABLE ran again without being undone: {key}"
