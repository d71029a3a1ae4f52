"""Advance: from a state, record and start everything that can be recorded and started now."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.answer import render_answer
from kfm_server.turns.bodies import arguments_to_record, undo_arguments
from kfm_server.turns.decide.draft import US, Draft, Start, Stop, error, micros, timestamp
from kfm_server.turns.decide.plan import make_plan
from kfm_server.turns.references import UnresolvedReference
from kfm_server.turns.state import ENDED_STEP, Session, Step, Turn

_RERUN = frozenset(
    {types.EFFECT_CONTRACT_PURE, types.EFFECT_CONTRACT_IDEMPOTENT, types.EFFECT_CONTRACT_TRANSACTIONAL}
)
_CANCELLABLE = frozenset({types.EFFECT_CONTRACT_PURE, types.EFFECT_CONTRACT_IDEMPOTENT})
_BACKOFF_FIRST_US = 200_000
_BACKOFF_MOST_US = 30 * US


def advance(draft: Draft) -> None:
    """Go on until nothing more follows: start the next turn, plan, dispatch, retry, wait, finish."""
    while True:
        if draft.session.active is None:
            if not draft.session.queue:
                return
            if not _start_next(draft):
                continue
        turn = draft.session.active
        assert turn is not None
        _advance_turn(draft, turn.turn_id)
        for queued in draft.session.queue:
            _expire(draft, queued.turn_id)
            if draft.turn(queued.turn_id).ending:
                _finish(draft, queued.turn_id)
        if draft.session.active is not None:
            return


def next_wake_us(session: Session) -> int | None:
    """When the session must be looked at again though nothing arrives."""
    wakes = [t.deadline_us for t in session.queue if not t.ending]
    if session.active is not None:
        turn = session.active
        if not turn.ending:
            wakes.append(turn.deadline_us)
        # A retry that may not start now is started by what ends the pause or makes room: its time would only spin.
        full = _room(turn) <= 0
        wakes += [
            s.wake_us
            for s in turn.steps.values()
            if s.wake_us is not None
            and not (s.phase == api.STEP_STATE_BACKING_OFF and (turn.paused or (full and not s.compensate)))
        ]
    return min(wakes, default=None)


def _start_next(draft: Draft) -> bool:
    turn = draft.session.queue[0]
    if turn.ending:
        _finish(draft, turn.turn_id)
        return False
    world = draft.world
    draft.record(
        turn.turn_id,
        ev.TurnStateEvent(
            change=ev.TURN_CHANGE_STARTED,
            personality_digest=world.personality_digest,
            schema_release=world.schema_release,
            tools_digest=world.tools_digest,
            deadline=timestamp(turn.deadline_us),
        ),
    )
    if not turn.plan_id:
        draft.record(turn.turn_id, make_plan(draft.turn(turn.turn_id), world))
    return True


def _advance_turn(draft: Draft, turn_id: str) -> None:
    _expire(draft, turn_id)
    turn = draft.turn(turn_id)
    if turn.ending:
        _end(draft, turn)
        return
    if turn.refusal is not None:
        _finish(draft, turn_id)
        return
    for key in tuple(turn.steps):
        _mend(draft, turn_id, key)
    turn = draft.turn(turn_id)
    if any(s.phase == api.STEP_STATE_FAILED and not s.compensate for s in turn.steps.values()):
        _end(draft, turn)
        return
    if all(s.phase == api.STEP_STATE_SUCCEEDED for s in turn.steps.values()):
        _finish(draft, turn_id)
        return
    if draft.hold:
        return
    if not turn.paused:
        for step in _ready(turn, draft.now_us):
            _dispatch(draft, turn_id, step)
            if draft.turn(turn_id).steps[step.definition.key].phase == api.STEP_STATE_FAILED:
                _end(draft, draft.turn(turn_id))
                return
    _wait(draft, turn_id)


def _expire(draft: Draft, turn_id: str) -> None:
    """Record the timers of a turn that have passed."""
    turn = draft.turn(turn_id)
    if draft.now_us >= turn.deadline_us and not turn.ending:
        draft.record(turn_id, ev.TurnStateEvent(change=ev.TURN_CHANGE_TIMER_FIRED))
    for key, step in turn.steps.items():
        if step.orphaned and step.wake_us is not None and draft.now_us >= step.wake_us:
            outcome_unknown(draft, turn_id, key)
        elif step.phase == api.STEP_STATE_WAITING and (step.wake_us or draft.now_us + 1) <= draft.now_us:
            late = error("REASON_STEP_TIMEOUT", f"nobody answered step {key} in time")
            result = ev.StepResultEvent(
                step_key=key, status=ev.STEP_STATUS_FAILED, error=late, synthesised=True
            )
            draft.record(turn_id, result, step.attempt)


def outcome_unknown(
    draft: Draft, turn_id: str, key: str, reason: str = "REASON_STEP_OUTCOME_UNKNOWN"
) -> None:
    """Record that a dispatched attempt will never answer, and that its effect may have happened."""
    step = draft.turn(turn_id).steps[key]
    text = "the process that ran the step is gone; whether its effect happened is not known"
    if reason == "REASON_STEP_CRASHES_PROCESS":
        text = f"the process died {step.reruns + 1} times while it ran this step"
    elif step.phase == api.STEP_STATE_FAILED:
        text = f"undoing the step failed {step.compensations} times; whether its effect stands is not known"
    draft.record(
        turn_id,
        ev.StepResultEvent(
            step_key=key,
            status=ev.STEP_STATUS_UNKNOWN,
            error=error(reason, text),
            compensation=bool(step.dispatch and step.dispatch.compensation),
            synthesised=True,
        ),
        step.attempt,
    )


def _mend(draft: Draft, turn_id: str, key: str) -> None:
    """A failed attempt: undo it, try again after a back-off, or leave it failed."""
    turn = draft.turn(turn_id)
    step = turn.steps[key]
    if _to_undo(step):
        if not turn.paused and not draft.hold:
            _undo(draft, turn_id, step)
        return
    if step.phase != api.STEP_STATE_FAILED:
        return
    may_retry = (
        step.error is not None
        and (step.error.retryable or step.error.reason == "REASON_STEP_OUTCOME_UNKNOWN")
        # REASON_FENCED: it was never started, so that starting it is not a second start
        and (
            step.definition.effect != types.EFFECT_CONTRACT_AT_MOST_ONCE
            or step.error.reason == "REASON_FENCED"
        )
    )
    if may_retry and step.attempt > 0 and step.tries < turn.request.limits.max_attempts:
        _back_off(draft, turn_id, key, step.tries)


def _to_undo(step: Step) -> bool:
    """Its attempt is to be undone, and nothing undoes it at this moment."""
    return step.compensate and step.phase in (api.STEP_STATE_FAILED, api.STEP_STATE_BACKING_OFF)


def _undo(draft: Draft, turn_id: str, step: Step) -> None:
    """Undo a failed attempt: at once, and after a try that failed, later; in the end a person looks."""
    key = step.definition.key
    if step.phase == api.STEP_STATE_BACKING_OFF:
        if (step.wake_us or 0) <= draft.now_us:
            _dispatch(draft, turn_id, step, compensation=True)
    elif step.dispatch is None or not step.dispatch.compensation:
        _dispatch(draft, turn_id, step, compensation=True)
    elif step.compensations < draft.turn(turn_id).request.limits.max_attempts:
        _back_off(draft, turn_id, key, step.compensations)
    else:
        outcome_unknown(draft, turn_id, key)


def _back_off(draft: Draft, turn_id: str, key: str, tries: int) -> None:
    wake_us = draft.now_us + backoff_us(tries, draft.turn(turn_id).last_event_id)
    draft.record(
        turn_id,
        ev.TurnStateEvent(
            change=ev.TURN_CHANGE_WAITING,
            wait_reason=ev.WAIT_REASON_RETRY_BACKOFF,
            step_key=key,
            wake_at=timestamp(wake_us),
            ended_by=ev.TURN_VERB_CANCEL,
        ),
    )


def backoff_us(tries: int, event_id: str) -> int:
    """Exponential back-off with jitter in [0.5, 1), derived from an event id so that a replay agrees."""
    full = min(_BACKOFF_MOST_US, _BACKOFF_FIRST_US << max(0, min(tries - 1, 20)))
    return full // 2 + zlib.crc32(event_id.encode()) * (full // 2) // 2**32


def _room(turn: Turn) -> int:
    running = sum(s.phase == api.STEP_STATE_RUNNING for s in turn.steps.values())
    return turn.request.limits.max_in_flight - running


def _ready(turn: Turn, now_us: int) -> list[Step]:
    """Steps that may be dispatched now, in plan order, within the bound on steps in flight."""
    room = _room(turn)
    ready: list[Step] = []
    for step in turn.steps.values():
        if len(ready) >= room:
            break
        backing_off = step.phase == api.STEP_STATE_BACKING_OFF and not step.compensate
        again = backing_off and (step.wake_us or 0) <= now_us
        fresh = step.phase == api.STEP_STATE_PENDING and all(
            turn.steps[d].phase == api.STEP_STATE_SUCCEEDED for d in step.definition.depends_on
        )
        if again or fresh:
            ready.append(step)
    return ready


@dataclass(frozen=True, slots=True)
class _Call:
    tool: str
    arguments_json: str


def _dispatch(
    draft: Draft, turn_id: str, step: Step, *, rerun: bool = False, compensation: bool = False
) -> None:
    turn = draft.turn(turn_id)
    definition = step.definition
    if rerun:
        assert step.dispatch is not None
        call = _Call(step.dispatch.tool, step.dispatch.parameters_json)
    elif compensation:
        assert step.dispatch is not None
        before = step.dispatch
        if before.compensation:
            call = _Call(before.tool, before.parameters_json)
        else:
            undo = undo_arguments(before.parameters_json, before.key)
            call = _Call(definition.compensation_tool, undo)
    else:
        try:
            call = _Call(definition.tool, arguments_to_record(turn, definition))
        except UnresolvedReference as bad:
            failed = error("REASON_PLAN_INVALID", f"step {definition.key}: {bad}")
            draft.record(
                turn_id,
                ev.StepResultEvent(
                    step_key=definition.key, status=ev.STEP_STATUS_FAILED, error=failed, synthesised=True
                ),
            )
            return
    timeout_us = micros(definition.timeout) or micros(turn.request.limits.step_timeout)
    human = definition.kind == types.STEP_KIND_HUMAN
    window = draft.world.start_window_us
    # The engine starts a PURE step when it likes; for others the window bounds when a frozen process may wake.
    deadline = draft.now_us + timeout_us + (0 if human else window)
    attempt = step.attempt + 1
    key = f"{turn.root_turn_id}:{definition.key}"
    # A rerun, and another try to undo the same attempt, go out under the key of the one before.
    again = (
        step.dispatch if rerun or (compensation and step.dispatch and step.dispatch.compensation) else None
    )
    draft.record(
        turn_id,
        ev.StepEvent(
            plan_id=turn.plan_id,
            step_id=f"{turn_id}:{definition.key}",
            step_key=definition.key,
            step_index=step.index,
            step_type=definition.kind,
            tool=call.tool,
            instructions=definition.instructions,
            parameters_json=call.arguments_json,
            contract=types.EFFECT_CONTRACT_IDEMPOTENT if compensation else definition.effect,
            key=again.key if again is not None else f"{key}:undo{step.attempt}" if compensation else key,
            start_by=None if human else timestamp(draft.now_us + window),
            deadline=timestamp(deadline) if not human or micros(definition.timeout) else None,
            pool=definition.pool or "local",
            rerun=rerun,
            compensation=compensation,
        ),
        attempt,
    )
    if not human:
        draft.starts.append(Start(turn_id, definition.key, attempt))


def redispatch(draft: Draft, turn_id: str, key: str) -> None:
    """Start a step again whose process died, as its contract allows, and count it."""
    if draft.hold:
        return
    step = draft.turn(turn_id).steps[key]
    if step.reruns >= draft.world.max_reruns:
        outcome_unknown(draft, turn_id, key, "REASON_STEP_CRASHES_PROCESS")
        return
    compensation = bool(step.dispatch and step.dispatch.compensation)
    _dispatch(draft, turn_id, step, rerun=True, compensation=compensation)


def may_rerun(step: Step) -> bool:
    """The running attempt may be started again without asking anyone."""
    return step.dispatch is not None and step.dispatch.contract in _RERUN


def _end(draft: Draft, turn: Turn) -> None:
    """Bring a turn to its end: cancel what may be cancelled, await what may not, then finish.

    A turn that fails undoes first what is to be undone. One that is cancelled, or out of time, starts nothing more.
    """
    for key, step in turn.steps.items():
        if step.phase in ENDED_STEP or step.phase == api.STEP_STATE_PENDING:
            continue
        undoable = step.definition.effect == types.EFFECT_CONTRACT_COMPENSATABLE
        if not turn.ending and (_to_undo(step) or (step.orphaned and undoable)):
            continue
        running = step.phase == api.STEP_STATE_RUNNING and not step.orphaned
        sent = step.dispatch
        if running and sent is not None and (sent.contract not in _CANCELLABLE or sent.compensation):
            continue
        if running:
            draft.stops.append(Stop(turn.turn_id, key, step.attempt))
        if step.orphaned:  # it may have had its effect: the history has to say so
            outcome_unknown(draft, turn.turn_id, key)
            if draft.turn(turn.turn_id).steps[key].phase in ENDED_STEP:
                continue
        cancelled(draft, turn.turn_id, key)
    turn = draft.turn(turn.turn_id)
    steps = turn.steps.values()
    if any(s.phase == api.STEP_STATE_RUNNING or (_to_undo(s) and not turn.ending) for s in steps):
        if not draft.hold:
            _wait(draft, turn.turn_id)
    else:
        _finish(draft, turn.turn_id)


def cancelled(draft: Draft, turn_id: str, key: str) -> None:
    """Answer a dispatched attempt that will not answer itself: no turn closes with an unanswered call."""
    step = draft.turn(turn_id).steps[key]
    sent = step.dispatch if step.phase == api.STEP_STATE_RUNNING else None
    draft.record(
        turn_id,
        ev.StepResultEvent(
            step_key=key,
            status=ev.STEP_STATUS_CANCELLED,
            error=error("REASON_CANCELLED", "the turn ended before the step did"),
            compensation=sent is not None and sent.compensation,
            synthesised=True,
        ),
        step.attempt,
    )


def _finish(draft: Draft, turn_id: str) -> None:
    turn = draft.turn(turn_id)
    failed = next((s for s in turn.steps.values() if s.phase == api.STEP_STATE_FAILED), None)
    outcome, why = ev.OUTCOME_SUCCEEDED, None
    if turn.ending == ev.OUTCOME_CANCELLED:
        outcome, why = turn.ending, error("REASON_CANCELLED", "the turn was cancelled")
    elif turn.ending == ev.OUTCOME_TIMED_OUT:
        outcome, why = turn.ending, error("REASON_TURN_TIMEOUT", "the turn did not end within its timeout")
    elif turn.refusal is not None:
        outcome, why = ev.OUTCOME_FAILED, turn.refusal
    elif failed is not None:
        outcome = ev.OUTCOME_FAILED
        why = failed.error or error("REASON_STEP_FAILED", f"step {failed.definition.key} failed")
    succeeded = outcome == ev.OUTCOME_SUCCEEDED
    draft.record(
        turn_id,
        ev.TurnStateEvent(
            change=ev.TURN_CHANGE_FINISHED,
            outcome=outcome,
            output=render_answer(tuple(_answers(turn))) if succeeded else (),
            usage=types.Usage(tool_calls=sum(s.attempt for s in turn.steps.values())),
            error=why,
            dropped=turn.dropped,
            effects_done=() if succeeded else tuple(_effects_done(turn)),
        ),
    )


def _answers(turn: Turn) -> Iterator[tuple[types.PlanStep, str]]:
    for step in turn.steps.values():
        yield step.definition, step.output_json


def _effects_done(turn: Turn) -> Iterator[str]:
    """Steps whose effects stand, or may stand."""
    for key, step in turn.steps.items():
        if (
            step.definition.effect == types.EFFECT_CONTRACT_PURE
            or step.definition.kind != types.STEP_KIND_TOOL
        ):
            continue
        unsure = step.compensate or any(a.status == ev.STEP_STATUS_UNKNOWN for a in step.history)
        if step.phase == api.STEP_STATE_CANCELLED and step.attempt > 0:
            unsure |= step.definition.effect == types.EFFECT_CONTRACT_IDEMPOTENT
        if step.phase == api.STEP_STATE_SUCCEEDED or unsure:
            yield key


def _wait(draft: Draft, turn_id: str) -> None:
    """Say why the turn does not go on, once, if nothing of it runs."""
    turn = draft.turn(turn_id)
    if any(s.phase == api.STEP_STATE_RUNNING and not s.orphaned for s in turn.steps.values()):
        return
    reason, key, until, verb = _why(turn)
    if turn.waiting is not None and (turn.waiting.reason, turn.waiting.step_key) == (reason, key):
        return
    draft.record(
        turn_id,
        ev.TurnStateEvent(
            change=ev.TURN_CHANGE_WAITING,
            wait_reason=reason,
            step_key=key,
            wake_at=None if until is None else timestamp(until),
            ended_by=verb,
        ),
    )


def _why(turn: Turn) -> tuple[ev.WaitReason, str, int | None, ev.TurnVerb]:
    by_phase: dict[int, tuple[str, Step]] = {}
    for key, step in turn.steps.items():
        by_phase.setdefault(step.phase, (key, step))
        if step.orphaned:
            return ev.WAIT_REASON_SETTLE_GRACE, key, step.wake_us, ev.TURN_VERB_CANCEL
    if api.STEP_STATE_NEEDS_REVIEW in by_phase:
        key, _ = by_phase[api.STEP_STATE_NEEDS_REVIEW]
        return ev.WAIT_REASON_NEEDS_REVIEW, key, turn.deadline_us, ev.TURN_VERB_SETTLE
    if turn.paused:
        return ev.WAIT_REASON_PAUSED, "", turn.deadline_us, ev.TURN_VERB_RESUME
    if api.STEP_STATE_WAITING in by_phase:
        key, step = by_phase[api.STEP_STATE_WAITING]
        return ev.WAIT_REASON_HUMAN, key, step.wake_us or turn.deadline_us, ev.TURN_VERB_ANSWER
    if api.STEP_STATE_BACKING_OFF in by_phase:
        key, step = by_phase[api.STEP_STATE_BACKING_OFF]
        return ev.WAIT_REASON_RETRY_BACKOFF, key, step.wake_us, ev.TURN_VERB_CANCEL
    return ev.WAIT_REASON_STEPS, "", turn.deadline_us, ev.TURN_VERB_CANCEL
