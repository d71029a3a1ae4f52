"""Fold: events -> state. The only place that changes state; the same events always give the same state."""

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.state import (
    ENDED_STEP,
    MODEL_KINDS,
    NEVER_STARTED,
    AttemptRecord,
    Phase,
    Session,
    Step,
    Turn,
    Waiting,
    replace,
)
from kfm_server.turns.times import micros

Envelope = envelope_pb2.Envelope
Changes = dict[str, Any]
"""Fields of a turn, and what they become."""


class HistoryError(Exception):
    """An event does not fit the ones before it: the history cannot be folded."""


def fold_session(session: Session, envelope: Envelope, payload: Message | None) -> Session:
    """The session after one more event of one of its turns. Raises HistoryError."""
    if isinstance(payload, ev.TurnEvent):
        recorded_us = max(session.recorded_us, micros(envelope.timestamp))
        turn = begin(envelope, payload)
        session = replace(session, tenant_id=envelope.tenant_id, recorded_us=recorded_us)
        if payload.on_busy in (ev.BUSY_MODE_INTERRUPT, ev.BUSY_MODE_ROLLBACK):
            if session.active is not None and payload.on_busy == ev.BUSY_MODE_ROLLBACK:
                session = replace(session, active=replace(session.active, dropped=True))
            return replace(session, queue=(turn, *session.queue))
        return replace(session, queue=(*session.queue, turn))
    turn = session.turn(envelope.turn_id)
    if turn is None:
        raise HistoryError(f"event {envelope.event_id} is for a turn that the session does not hold")
    return put(session, fold_turn(turn, envelope, payload), envelope)


def put(session: Session, turn: Turn, envelope: Envelope) -> Session:
    """The session with a turn of it as it is after its event `envelope`. Raises HistoryError."""
    recorded_us = max(session.recorded_us, micros(envelope.timestamp))
    if turn is session.active or (session.active and turn.turn_id == session.active.turn_id):
        left = None if turn.phase == api.TURN_STATE_FINISHED else turn
        return replace(session, active=left, recorded_us=recorded_us)
    rest = tuple(t for t in session.queue if t.turn_id != turn.turn_id)
    if turn.phase == api.TURN_STATE_FINISHED:
        return replace(session, queue=rest, recorded_us=recorded_us)
    if turn.phase != api.TURN_STATE_QUEUED:
        if session.active is not None:
            raise HistoryError(f"turn {turn.turn_id} started while {session.active.turn_id} runs")
        return replace(session, active=turn, queue=rest, recorded_us=recorded_us)
    queue = tuple(turn if t.turn_id == turn.turn_id else t for t in session.queue)
    return replace(session, queue=queue, recorded_us=recorded_us)


def begin(envelope: Envelope, payload: ev.TurnEvent) -> Turn:
    """A turn from its first event."""
    if envelope.sequence != 1:
        raise HistoryError(f"turn {envelope.turn_id} begins at sequence {envelope.sequence}")
    submitted = micros(envelope.timestamp)
    return Turn(
        turn_id=envelope.turn_id,
        session_id=envelope.session_id,
        tenant_id=envelope.tenant_id,
        trace_id=envelope.trace_id,
        traceparent=envelope.traceparent,
        request=payload,
        submitted_us=submitted,
        deadline_us=submitted + micros(payload.timeout),
        last_event_id=envelope.event_id,
    )


def fold_turn(turn: Turn, envelope: Envelope, payload: Message | None) -> Turn:
    """The turn after one more event. Raises HistoryError for a gap, a repeat or an event after the end."""
    if envelope.sequence != turn.sequence + 1:
        raise HistoryError(f"turn {turn.turn_id}: event {envelope.sequence} follows {turn.sequence}")
    if turn.phase == api.TURN_STATE_FINISHED:
        raise HistoryError(f"turn {turn.turn_id}: event {envelope.sequence} follows its end")
    handler = _FOLDS.get(type(payload))
    if handler is None:
        raise HistoryError(f"turn {turn.turn_id}: {envelope.type} has no place in a turn")
    changes = handler(turn, envelope, payload)
    return replace(turn, sequence=envelope.sequence, last_event_id=envelope.event_id, **changes)


def _plan(turn: Turn, envelope: Envelope, payload: ev.PlanEvent) -> Changes:
    plans = turn.plans + 1
    if payload.change == ev.PLAN_CHANGE_REFUSED:
        return {"plans": plans, "planner": payload.planner, "refusal": payload.error}
    steps, asks = dict(turn.steps), turn.asks
    for definition in payload.steps:
        told = ""
        if definition.kind in MODEL_KINDS:
            told, asks = payload.error.message, True
        steps[definition.key] = Step(definition=definition, index=len(steps), feedback=told)
    return {
        "plan_id": payload.plan_id,
        "planner": payload.planner,
        "steps": steps,
        "asks": asks,
        "plans": plans,
        "repairs": turn.repairs + 1 if payload.change == ev.PLAN_CHANGE_REPAIRED else 0,
    }


def _dispatched(turn: Turn, envelope: Envelope, payload: ev.StepEvent) -> Changes:
    step = _step(turn, payload.step_key)
    human = payload.step_type == types.STEP_KIND_HUMAN  # nothing runs, a person is asked
    record = AttemptRecord(
        attempt=envelope.attempt,
        dispatched_us=micros(envelope.timestamp),
        rerun=payload.rerun,
        compensation=payload.compensation,
    )
    counted = not payload.rerun and not payload.compensation
    return _with(
        turn,
        replace(
            step,
            phase=api.STEP_STATE_WAITING if human else api.STEP_STATE_RUNNING,
            attempt=envelope.attempt,
            tries=step.tries + counted,
            reruns=step.reruns + 1 if payload.rerun else 0,
            compensations=step.compensations + (payload.compensation and not payload.rerun),
            dispatch=payload,
            dispatch_event_id=envelope.event_id,
            orphaned=False,
            wake_us=micros(payload.deadline) if human and payload.HasField("deadline") else None,
            history=(*step.history, record),
        ),
        waiting=None,
        phase=api.TURN_STATE_RUNNING,
    )


_AFTER = {
    ev.STEP_STATUS_SUCCEEDED: api.STEP_STATE_SUCCEEDED,
    ev.STEP_STATUS_FAILED: api.STEP_STATE_FAILED,
    ev.STEP_STATUS_CANCELLED: api.STEP_STATE_CANCELLED,
    ev.STEP_STATUS_SKIPPED: api.STEP_STATE_SKIPPED,
    ev.STEP_STATUS_UNKNOWN: api.STEP_STATE_NEEDS_REVIEW,
}


def _ended(turn: Turn, envelope: Envelope, payload: ev.StepResultEvent) -> Changes:
    step = _step(turn, payload.step_key)
    history, error = step.history, payload.error if payload.HasField("error") else None
    if history and history[-1].attempt == envelope.attempt and not history[-1].ended_us:
        metrics = payload.metrics
        last = replace(
            history[-1],
            ended_us=micros(envelope.timestamp),
            status=payload.status,
            error=error,
            usage=metrics.usage if metrics.HasField("usage") else None,
            model=metrics.model,
            provider_request_id=metrics.provider_request_id,
            called=not _uncalled(step, payload),
        )
        history = (*history[:-1], last)
    # What never started is not counted: a database that is away again and again must not use up the tries.
    unstarted = error is not None and error.reason in NEVER_STARTED
    phase = _AFTER.get(payload.status, api.STEP_STATE_FAILED)
    compensatable = step.definition.effect == types.EFFECT_CONTRACT_COMPENSATABLE
    undone = payload.compensation and payload.status == ev.STEP_STATUS_SUCCEEDED
    if payload.compensation:
        # Undone: the step is as if its attempt had failed. Not undone: undo again, or a person looks.
        phase = api.STEP_STATE_FAILED
        compensate = not undone
        if payload.status == ev.STEP_STATUS_UNKNOWN:
            phase = api.STEP_STATE_NEEDS_REVIEW
    else:
        started = envelope.attempt > 0
        compensate = (
            compensatable
            and started
            and not (payload.synthesised and step.phase == api.STEP_STATE_NEEDS_REVIEW)
            and payload.status in (ev.STEP_STATUS_FAILED, ev.STEP_STATUS_UNKNOWN)
            and not unstarted
        )
        if compensate:
            phase = api.STEP_STATE_FAILED
        elif payload.status == ev.STEP_STATUS_CANCELLED:
            compensate = step.compensate  # nobody will undo it, and the turn has to list it
    return _with(
        turn,
        replace(
            step,
            phase=phase,
            compensate=compensate,
            tries=step.tries - (unstarted and not payload.compensation),
            compensations=0 if undone else step.compensations - (unstarted and payload.compensation),
            reruns=0,
            orphaned=False,
            wake_us=None,
            output_json=payload.output_json if payload.status == ev.STEP_STATUS_SUCCEEDED else "",
            error=step.error if error is None else error,
            history=history,
        ),
        waiting=None,
        phase=api.TURN_STATE_RUNNING if turn.phase != api.TURN_STATE_QUEUED else turn.phase,
    )


_REFUSED_BEFORE_THE_CALL = frozenset(
    {
        "REASON_BUDGET_EXCEEDED",
        "REASON_MODEL_NOT_FOUND",
        "REASON_HISTORY_UNREADABLE",
        "REASON_UNAVAILABLE",
    }
)
"""Why a model step makes no call; a provider may say the same, but then a prompt was sent, and has a digest."""


def _uncalled(step: Step, payload: ev.StepResultEvent) -> bool:
    if payload.error.reason in NEVER_STARTED:
        return True
    if step.definition.kind not in MODEL_KINDS or payload.synthesised:
        return False
    if payload.metrics.HasField("usage") and not payload.metrics.usage.model_calls:
        return True  # a reply kept from an equal call
    refused = payload.error.reason in _REFUSED_BEFORE_THE_CALL and not payload.metrics.prompt_digest
    return refused or payload.error.metadata.get("breaker") == "open"


def _control(turn: Turn, envelope: Envelope, payload: ev.TurnControlEvent) -> Changes:
    match payload.verb:
        case ev.TURN_VERB_CANCEL:
            return {"ending": ev.OUTCOME_CANCELLED, "waiting": None}
        case ev.TURN_VERB_PAUSE:
            return {"paused": True, "waiting": None}
        case ev.TURN_VERB_RESUME:
            return {"paused": False, "waiting": None}
        case ev.TURN_VERB_SETTLE if payload.settle_as == ev.SETTLE_AS_RETRY:
            step = _step(turn, payload.step_key)
            fresh = replace(step, phase=api.STEP_STATE_PENDING, compensate=False, reruns=0, compensations=0)
            return _with(turn, fresh, waiting=None, phase=api.TURN_STATE_RUNNING)
        case _:
            return {}


def _changed(turn: Turn, envelope: Envelope, payload: ev.TurnStateEvent) -> Changes:
    at = micros(envelope.timestamp)
    match payload.change:
        case ev.TURN_CHANGE_STARTED:
            return {"phase": api.TURN_STATE_RUNNING, "personality_json": payload.personality_json}
        case ev.TURN_CHANGE_WAITING:
            until = micros(payload.wake_at) if payload.HasField("wake_at") else None
            waiting = Waiting(payload.wait_reason, payload.step_key, until, at)
            steps = turn.steps
            if payload.wait_reason == ev.WAIT_REASON_RETRY_BACKOFF:
                step = replace(_step(turn, payload.step_key), phase=api.STEP_STATE_BACKING_OFF, wake_us=until)
                steps = {**steps, payload.step_key: step}
            elif payload.wait_reason == ev.WAIT_REASON_SETTLE_GRACE:
                step = replace(_step(turn, payload.step_key), orphaned=True, wake_us=until)
                steps = {**steps, payload.step_key: step}
            return {"steps": steps, "waiting": waiting, "phase": _phase_while_waiting(steps)}
        case ev.TURN_CHANGE_TIMER_FIRED:
            if payload.step_key:
                return {}
            return {"ending": ev.OUTCOME_TIMED_OUT, "waiting": None}
        case ev.TURN_CHANGE_FINISHED:
            steps = {
                k: s if s.phase in ENDED_STEP else replace(s, phase=api.STEP_STATE_SKIPPED)
                for k, s in turn.steps.items()
            }
            return {
                "steps": steps,
                "phase": api.TURN_STATE_FINISHED,
                "outcome": payload.outcome,
                "output": tuple(payload.output),
                "error": payload.error if payload.HasField("error") else None,
                "finished_us": at,
                "dropped": payload.dropped,
                "effects_done": tuple(payload.effects_done),
                "waiting": None,
            }
        case _:
            return {}


def _phase_while_waiting(steps: Mapping[str, Step]) -> Phase:
    running = any(s.phase == api.STEP_STATE_RUNNING and not s.orphaned for s in steps.values())
    return api.TURN_STATE_RUNNING if running else api.TURN_STATE_WAITING


def _step(turn: Turn, key: str) -> Step:
    step = turn.steps.get(key)
    if step is None:
        raise HistoryError(f"turn {turn.turn_id} has no step {key!r}")
    return step


def _with(turn: Turn, step: Step, **changes: Any) -> Changes:
    return {"steps": {**turn.steps, step.definition.key: step}, **changes}


def _ignored(turn: Turn, envelope: Envelope, payload: None) -> Changes:
    """A newer release's event that says that it may be ignored: only its place counts."""
    return {}


_FOLDS: dict[type[Any], Callable[[Turn, Envelope, Any], Changes]] = {
    type(None): _ignored,
    ev.PlanEvent: _plan,
    ev.StepEvent: _dispatched,
    ev.StepResultEvent: _ended,
    ev.TurnControlEvent: _control,
    ev.TurnStateEvent: _changed,
}
