"""How steps and turns end without an answer of their own, and what a turn leaves behind."""

from collections.abc import Iterator

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.answer import answer_of, misfit_of_parts
from kfm_server.turns.decide.draft import Draft, Stop, error
from kfm_server.turns.decide.waiting import wait
from kfm_server.turns.state import ENDED_STEP, Turn, fatal, told_of
from kfm_server.turns.usage import usage_of

_CANCELLABLE = frozenset({types.EFFECT_CONTRACT_PURE, types.EFFECT_CONTRACT_IDEMPOTENT})


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


def end(draft: Draft, turn: Turn) -> None:
    """Bring a turn to its end: cancel what may be cancelled, await what may not, then finish.

    A turn that fails undoes first what is to be undone. One that is cancelled, or out of time, starts nothing more.
    """
    for key, step in turn.steps.items():
        if step.phase in ENDED_STEP or step.phase == api.STEP_STATE_PENDING:
            continue
        undoable = step.definition.effect == types.EFFECT_CONTRACT_COMPENSATABLE
        if not turn.ending and (step.to_undo or (step.orphaned and undoable)):
            continue
        running = step.phase == api.STEP_STATE_RUNNING and not step.orphaned
        sent = step.dispatch
        if running and sent is not None and (sent.contract not in _CANCELLABLE or sent.compensation):
            if sent.pool != "local":
                draft.withdrawals.append(Stop(turn.turn_id, key, step.attempt))
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
    if any(s.phase == api.STEP_STATE_RUNNING or (s.to_undo and not turn.ending) for s in steps):
        if not draft.hold:
            wait(draft, turn.turn_id)
    else:
        finish(draft, turn.turn_id)


def finish(draft: Draft, turn_id: str) -> None:
    """Record the turn's end: its outcome and answer, or why there is none and which effects stand."""
    turn = draft.turn(turn_id)
    told = told_of(turn)
    failed = next((s for s in turn.steps.values() if fatal(turn, s, told)), None)
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
    output = answer_of(turn) if outcome == ev.OUTCOME_SUCCEEDED else ()
    problem = misfit_of_parts(turn, output)
    if outcome == ev.OUTCOME_SUCCEEDED and problem:
        outcome, why, output = ev.OUTCOME_FAILED, error("REASON_OUTPUT_INVALID", problem), ()
    succeeded = outcome == ev.OUTCOME_SUCCEEDED
    draft.record(
        turn_id,
        ev.TurnStateEvent(
            change=ev.TURN_CHANGE_FINISHED,
            outcome=outcome,
            output=output,
            usage=usage_of(turn),
            error=why,
            dropped=turn.dropped,
            effects_done=() if succeeded else tuple(_effects_done(turn)),
        ),
    )


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
