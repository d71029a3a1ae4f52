"""The auditor: holds every commit, every start of an effect and everything told against what was promised."""

import asyncio
import itertools
from dataclasses import dataclass, field
from typing import Any

from kfm.catalogue.events import unpack
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.journal import Entry
from kfm_server.turns.fold import HistoryError, begin, fold_turn
from kfm_server.turns.state import MODEL_KINDS, NEVER_STARTED, Phase, Turn

from tests.simulator.ledger import Ledger, Row

ASKED_SECONDS = 1.0
"""A takeover waits for longer than this for workers to tell what they hold."""
_PHASE_NAMES = {
    api.TURN_STATE_QUEUED: "queued",
    api.TURN_STATE_RUNNING: "running",
    api.TURN_STATE_WAITING: "waiting",
    api.TURN_STATE_FINISHED: "finished",
}


@dataclass
class _Call:
    """What the log says of a step, read without the engine's fold."""

    contract: int
    attempt: int = 0
    open: bool = False
    start_by: int = 0
    last: ev.StepResultEvent | None = None
    settled_retry: int = 0
    retries: int = 0
    """How often a person said that it may start again."""
    settled: bool = False
    """A person said how it ended; people err."""
    compensation: bool = False
    undo_key: str = ""


@dataclass
class _TurnLog:
    session_id: str
    root: str
    sequence: int = 0
    cancelled: bool = False
    paused: bool = False
    finished: ev.TurnStateEvent | None = None
    steps: dict[str, _Call] = field(default_factory=dict[str, _Call])
    definitions: dict[str, types.PlanStep] = field(default_factory=dict[str, types.PlanStep])
    forked: bool = False
    tokens: int = 0
    """What results told of model calls, each once."""
    folded: Turn | None = None


class Auditor:
    """I1 to I7. `violations` says what was broken, first one first."""

    def __init__(self, memory: MemoryJournal, ledger: Ledger) -> None:
        self.violations: list[str] = []
        self.turns: dict[str, _TurnLog] = {}
        self.acknowledged: dict[str, str] = {}
        """Turn by idempotency key."""
        self._memory = memory
        self._ledger = ledger
        self._active: dict[str, str] = {}
        self._dispatches: dict[tuple[str, int, int], int] = {}
        self._partitions: dict[str, int] = {}
        self._logs: dict[str, list[_TurnLog]] = {}
        self._epochs: dict[str, int] = {}
        """Of a session's last entry."""
        self._epoch, self._soon = 0, False
        self.taken: dict[tuple[int, int], float] = {}
        self._answers: set[tuple[str, str, int]] = set()
        ledger.on_start = self.effect_started

    def broken(self, text: str) -> None:
        """Note a violation."""
        now = asyncio.get_running_loop().time()
        self.violations.append(f"[{now:9.3f}] {text}")

    # -- at every commit

    def committed(self, entry: Entry) -> None:
        """Look at an entry right after its commit, before anything else happens."""
        if self._memory.epochs[entry.partition] != entry.epoch:
            self.broken(f"I5 a write of epoch {entry.epoch} after {self._memory.epochs[entry.partition]}")
        now, began = asyncio.get_running_loop().time(), (entry.partition, entry.epoch)
        self._epoch, self._soon = entry.epoch, now - self.taken.get(began, now) < ASKED_SECONDS
        touched: dict[str, None] = {}
        for record in entry.records:
            envelope = envelope_pb2.Envelope.FromString(record.envelope)
            touched[record.turn_id] = None
            try:
                self._event(envelope, unpack(envelope), entry.epoch, entry.partition)
            except HistoryError as bad:
                self.broken(f"I2 the log cannot be folded: {bad}")
        for turn_id in touched:
            self._projection(turn_id)
        self._epochs.update((self.turns[turn_id].session_id, entry.epoch) for turn_id in touched)

    def _projection(self, turn_id: str) -> None:
        turn, row = self.turns[turn_id].folded, self._memory._turns.get(turn_id)
        if turn is None:
            return
        if row is None or row.phase != _PHASE_NAMES[turn.phase]:
            self.broken(f"I6 {turn_id} is {row and row.phase}, its log says {_PHASE_NAMES[turn.phase]}")

    def _event(self, envelope: envelope_pb2.Envelope, payload: Any, epoch: int, partition: int) -> None:
        turn_id = envelope.turn_id
        log = self.turns.get(turn_id)
        if log is None:
            root = payload.root_turn_id if isinstance(payload, ev.TurnEvent) else ""
            log = self.turns[turn_id] = _TurnLog(envelope.session_id, root or turn_id)
        if envelope.sequence != log.sequence + 1:
            self.broken(f"I2 {turn_id}: sequence {envelope.sequence} follows {log.sequence}")
        log.sequence = envelope.sequence
        if log.finished is not None:
            self.broken(f"I1 {turn_id}: an event after its end: {envelope.sequence}")
        match payload:
            case ev.TurnEvent():
                log.forked = bool(payload.parent_turn_id)
            case ev.PlanEvent():
                log.definitions.update({s.key: s for s in payload.steps})
            case ev.StepEvent():
                self._dispatched(log, envelope, payload, epoch, partition)
            case ev.StepResultEvent():
                self._answered(log, envelope, payload)
            case ev.TurnControlEvent():
                self._controlled(log, payload)
            case ev.TurnStateEvent():
                self._changed(log, envelope, payload)
            case _:
                self.broken(f"{turn_id}: {envelope.type} has no place in a turn")
        log.folded = (
            begin(envelope, payload) if log.folded is None else fold_turn(log.folded, envelope, payload)
        )

    def _dispatched(
        self, log: _TurnLog, envelope: envelope_pb2.Envelope, sent: ev.StepEvent, epoch: int, partition: int
    ) -> None:
        name = f"{envelope.turn_id} {sent.step_key}"
        effect = log.definitions[sent.step_key].effect
        step = log.steps.setdefault(sent.step_key, _Call(effect))
        if envelope.attempt != step.attempt + 1:
            self.broken(f"{name}: attempt {envelope.attempt} follows {step.attempt}")
        if step.open and not sent.rerun:
            self.broken(f"{name}: dispatched while attempt {step.attempt} is unanswered")
        if sent.rerun and not step.open:
            self.broken(f"{name}: a rerun of an attempt that was answered")
        if sent.rerun:
            self._not_asked(log, sent.step_key)
        if log.cancelled:
            self.broken(f"{name}: dispatched after a cancel")
        if log.paused and not sent.rerun:
            self.broken(f"{name}: dispatched during a pause")
        once = effect == types.EFFECT_CONTRACT_AT_MOST_ONCE and step.attempt > 0
        if once and not sent.compensation:
            last = step.last
            allowed = step.settled_retry > 0 or (last is not None and last.error.reason in NEVER_STARTED)
            if step.open or not allowed:
                self.broken(f"I3 {name}: an AT_MOST_ONCE step is dispatched again")
            step.settled_retry = 0
        model = sent.step_type in MODEL_KINDS
        expected = f"{envelope.turn_id if model else log.root}:{sent.step_key}"
        if not sent.compensation and sent.key != expected:
            self.broken(f"I3 {name}: key {sent.key} is not {expected}")
        if sent.compensation and step.compensation and sent.key != step.undo_key:
            self.broken(f"I3 {name}: undone under the key {sent.key} after {step.undo_key}")
        step.undo_key = sent.key
        step.attempt, step.open, step.compensation = envelope.attempt, True, sent.compensation
        known = (expected, envelope.attempt, epoch)
        self._dispatches[known] = self._dispatches.get(known, 0) + 1  # a retried turn has its root's keys
        self._logs.setdefault(expected, []).append(log)
        self._partitions[expected] = partition

    def _not_asked(self, log: _TurnLog, key: str) -> None:
        """The first entry of an owner may not settle, or start again, what a worker may perform: it is asked for first."""
        step = log.folded.steps[key] if log.folded is not None else None
        if step is None or step.phase != api.STEP_STATE_RUNNING or step.dispatch is None or step.orphaned:
            return
        if (
            step.dispatch.pool not in ("", "local")
            and self._soon
            and self._epochs[log.session_id] != self._epoch
        ):
            self.broken(f"I3 {log.root}:{key} is given up by a takeover that did not ask for it")

    def _answered(self, log: _TurnLog, envelope: envelope_pb2.Envelope, result: ev.StepResultEvent) -> None:
        name = f"{envelope.turn_id} {result.step_key}"
        step = log.steps.get(result.step_key)
        if step is None:
            if envelope.attempt:
                self.broken(f"{name}: a result without a dispatch")
            return
        if envelope.attempt and envelope.attempt != step.attempt:
            self.broken(f"I5 {name}: a result of attempt {envelope.attempt} while {step.attempt} is the last")
        last = step.last  # what was answered well stays so; the rest may be settled or cancelled
        review = last is not None and (last.status != ev.STEP_STATUS_SUCCEEDED or last.compensation)
        if not step.open and not (result.synthesised and review):
            self.broken(f"I5 {name}: attempt {envelope.attempt} is answered a second time")
        step.open, step.last = False, result
        if result.synthesised and result.status == ev.STEP_STATUS_UNKNOWN:
            self._not_asked(log, result.step_key)
        self._answers.add((envelope.turn_id, result.step_key, envelope.attempt))
        log.tokens += result.metrics.usage.input_tokens + result.metrics.usage.output_tokens

    def _controlled(self, log: _TurnLog, asked: ev.TurnControlEvent) -> None:
        match asked.verb:
            case ev.TURN_VERB_CANCEL:
                log.cancelled = True
            case ev.TURN_VERB_PAUSE:
                log.paused = True
            case ev.TURN_VERB_RESUME:
                log.paused = False
            case ev.TURN_VERB_SETTLE:
                step = log.steps[asked.step_key]
                step.settled = True
                step.settled_retry += asked.settle_as == ev.SETTLE_AS_RETRY
                step.retries += asked.settle_as == ev.SETTLE_AS_RETRY
            case _:
                pass

    def _changed(self, log: _TurnLog, envelope: envelope_pb2.Envelope, change: ev.TurnStateEvent) -> None:
        turn_id = envelope.turn_id
        if change.change == ev.TURN_CHANGE_STARTED:
            other = self._active.get(log.session_id)
            if other is not None:
                self.broken(f"{turn_id} starts while {other} of its session runs")
            self._active[log.session_id] = turn_id
        if change.change == ev.TURN_CHANGE_FINISHED:
            log.finished = change
            if self._active.get(log.session_id) == turn_id:
                del self._active[log.session_id]
            billed = change.usage.input_tokens + change.usage.output_tokens
            if billed != log.tokens:
                self.broken(f"I6 {turn_id} bills {billed} tokens; its calls used {log.tokens}")
            unanswered = [k for k, s in log.steps.items() if s.open]
            if unanswered:
                self.broken(f"{turn_id} ends with unanswered calls: {', '.join(unanswered)}")

    # -- at every start of an effect

    def effect_started(self, row: Row) -> None:
        """A tool was called."""
        if row.pool:
            self._started_at_a_worker(row)
            return
        sent = self._dispatches.get((row.key, row.attempt, row.epoch), 0)
        if not sent:
            self.broken(f"I3 {row.tool} {row.key} attempt {row.attempt} starts without a durable dispatch")
            return
        now = self._memory.epochs[self._partitions[row.key]]
        if row.epoch != now:
            self.broken(f"I5 {row.tool} {row.key} starts under epoch {row.epoch}; the partition is at {now}")
        same = [
            r for r in self._ledger.rows if (r.key, r.attempt, r.epoch) == (row.key, row.attempt, row.epoch)
        ]
        if len(same) > sent:
            self.broken(f"I3 {row.tool} {row.key}: attempt {row.attempt} starts twice")
        if row.tool == "undo":
            self._undone(row, "do")

    def _undone(self, row: Row, tool: str) -> None:
        for r in self._ledger.rows:
            if (r.tool, r.key) == (tool, row.key) and not r.left and self.alive(r):
                self.broken(f"I3 {row.key} is undone while attempt {r.attempt} still runs")

    def _started_at_a_worker(self, row: Row) -> None:
        """What a worker was leased it may start although its owner has gone since; but once, and not when it was settled."""
        name, step_key = f"{row.tool} {row.key} attempt {row.attempt}", row.key.split(":", 1)[1]
        epochs = [e for (key, attempt, e) in self._dispatches if (key, attempt) == (row.key, row.attempt)]
        if not any(epoch <= row.epoch for epoch in epochs):
            self.broken(f"I3 {name} starts without a durable dispatch")
            return
        sent = sum(n for (k, a, _), n in self._dispatches.items() if (k, a) == (row.key, row.attempt))
        same = [
            r for r in self._ledger.rows if (r.tool, r.key, r.attempt) == (row.tool, row.key, row.attempt)
        ]
        if len(same) > sent:
            self.broken(f"I3 {name} starts {len(same)} times at workers")
        if row.tool in ("pool_once", "pool_do") and not any(
            self._may_start(log, step_key, row.attempt) for log in self._logs[row.key]
        ):
            self.broken(f"I3 {name} starts though the log has gone on without it")
        if row.tool == "pool_undo":
            self._undone(row, "pool_do")

    def alive(self, row: Row) -> bool:
        """Whether the process that made a call may still run it. The simulation replaces this."""
        return True

    # -- what clients were told

    def told(self, client: str, envelope: envelope_pb2.Envelope) -> None:
        """A watcher got an event."""
        stored = self._memory._by_turn.get(envelope.turn_id, {}).get(envelope.sequence)
        if stored is None:
            self.broken(f"I4 {client} was told {envelope.event_id}, which is not in the journal")
        elif stored.envelope != envelope.SerializeToString():
            self.broken(f"I4 {client} was told {envelope.event_id} otherwise than the journal has it")

    def acknowledge(self, key: str, turn_id: str) -> None:
        """A client got an answer to its request."""
        before = self.acknowledged.setdefault(key, turn_id)
        if before != turn_id:
            self.broken(f"key {key} made two turns: {before} and {turn_id}")
        if turn_id not in self.turns:
            self.broken(f"I4 {turn_id} was acknowledged and is not in the journal")

    @staticmethod
    def _may_start(log: _TurnLog, key: str, attempt: int) -> bool:
        step = log.steps[key]
        awaited = step.open and step.attempt == attempt and not step.compensation
        # A turn that ends does not wait for what it has lost sight of; it says that the effect may stand.
        return awaited or (log.finished is not None and key in log.finished.effects_done)

    def result_acknowledged(self, ack: pb.Ack) -> None:
        """A worker is told to forget a result."""
        ref = ack.ref
        if ack.accepted and (ref.turn_id, ref.step_key, ref.attempt) not in self._answers:
            self.broken(f"I4 {ref.turn_id} {ref.step_key}: a result is acknowledged and not in the journal")

    # -- at the end

    def finish(self) -> None:
        """All is quiet: what must have come about."""
        for turn_id, log in self.turns.items():
            if log.finished is None:
                state = log.folded
                waiting = state.waiting if state else None
                self.broken(
                    f"I1 {turn_id} has not ended; it is {state and Phase.Name(state.phase)}, waits {waiting}"
                )
        for partition, stored in self._memory._log.items():
            if [s.offset for s in stored] != list(range(1, len(stored) + 1)):
                self.broken(f"I2 partition {partition}: its offsets have gaps")
            if any(a.epoch > b.epoch for a, b in itertools.pairwise(stored)):
                self.broken(f"I5 partition {partition}: its epochs go back")
        if not self.violations:  # what follows reads logs that make sense
            self._effects()

    def _effects(self) -> None:
        once = self._ledger.of("once") | self._ledger.of("pool_once")
        done = self._ledger.of("do") | self._ledger.of("pool_do")
        undo = self._ledger.of("undo") | self._ledger.of("pool_undo")
        open_keys: dict[str, tuple[_TurnLog, _Call]] = {}
        forks: set[str] = set()
        for log in self.turns.values():
            for key, step in log.steps.items():
                name = f"{log.root}:{key}"
                if name in open_keys:
                    forks.add(name)
                open_keys[name] = (log, step)
        for key, rows in once.items():
            if key not in forks and len(rows) > 1 + open_keys[key][1].retries:
                self.broken(f"I3 {key}: AT_MOST_ONCE, started {len(rows)} times")
        for key, rows in done.items():
            log, _ = open_keys[key]
            if key in forks:
                continue
            self._compensated(key, log, rows, undo.get(key, []))
        committed = self._ledger.committed
        for key in set(committed):
            if key not in forks and committed.count(key) > 1:
                self.broken(f"I3 {key}: TRANSACTIONAL, committed {committed.count(key)} times")
        for name, (_, step) in open_keys.items():
            if step.contract != types.EFFECT_CONTRACT_TRANSACTIONAL or name in forks:
                continue
            good = step.last is not None and step.last.status == ev.STEP_STATUS_SUCCEEDED
            if good and not step.last.synthesised and name not in committed:  # type: ignore[union-attr]
                self.broken(f"I3 {name}: TRANSACTIONAL, succeeded without its effect")
            if name in committed and not good:
                self.broken(f"I3 {name}: TRANSACTIONAL, its effect stands without a result")

    def _compensated(self, key: str, log: _TurnLog, rows: list[Row], undone: list[Row]) -> None:
        step_key = key.split(":", 1)[1]
        turn = log.folded
        assert turn is not None
        settled = log.steps[step_key].settled
        calls = sorted([*rows, *undone], key=lambda r: r.attempt)
        for before, after in itertools.pairwise(calls):
            if (
                before.tool == after.tool != "undo"
                and before.tool != "pool_undo"
                and before.done
                and not settled
            ):
                self.broken(f"I3 {key}: attempt {after.attempt} runs though {before.attempt} was not undone")
        listed = log.finished is not None and step_key in log.finished.effects_done
        stands = any(r.done for r in rows) and not (
            undone and undone[-1].done and undone[-1].attempt > rows[-1].attempt
        )
        good = log.finished is not None and log.finished.outcome == ev.OUTCOME_SUCCEEDED
        if stands and not listed and not good and not log.steps[step_key].settled:
            self.broken(f"{key}: its effect stands, and the turn does not list it")
