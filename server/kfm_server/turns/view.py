"""What a client sees of a turn, from its folded state."""

import hashlib

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as rpc

from kfm_server.turns.bodies import is_large
from kfm_server.turns.state import Session, Step, Turn
from kfm_server.turns.times import micros, timestamp
from kfm_server.turns.usage import usage_of

MAX_OUTPUTS_BYTES = 32 * 1024 * 1024
"""Beyond this many bytes of all its steps' outputs, a turn is shown without the large ones: ReadStepOutput gives them."""
MAX_WHY = 500
"""Longest account of the error that a step backs off from, in characters."""


def show_turn(turn: Turn, *, steps: bool = True) -> api.Turn:
    """The turn as the API shows it; without steps for lists."""
    request = turn.request
    return api.Turn(
        turn_id=turn.turn_id,
        session_id=turn.session_id,
        state=turn.phase,
        outcome=turn.outcome,
        spec=api.TurnSpec(
            session_id=turn.session_id,
            personality=request.personality,
            input=request.input,
            on_busy=request.on_busy,
            timeout=request.timeout,
            limits=request.limits,
            labels=request.labels,
            output_schema_json=request.output_schema_json,
        ),
        planner=turn.planner,
        steps=_steps(turn) if steps else (),
        output=turn.output,
        error=turn.error,
        usage=usage_of(turn),
        wait_reason=turn.waiting.reason if turn.waiting else ev.WAIT_REASON_UNSPECIFIED,
        submitted_at=timestamp(turn.submitted_us),
        finished_at=timestamp(turn.finished_us) if turn.finished_us else None,
        deadline=timestamp(turn.deadline_us),
        last_sequence=turn.sequence,
        parent_turn_id=request.parent_turn_id,
        effects_done=turn.effects_done,
    )


def _steps(turn: Turn) -> list[api.Step]:
    whole = sum(len(step.output_json.encode()) for step in turn.steps.values()) <= MAX_OUTPUTS_BYTES
    return [_step(step, whole) for step in turn.steps.values()]


def _step(step: Step, whole: bool) -> api.Step:
    output = step.output_json
    body = output.encode() if is_large(output) else b""
    return api.Step(
        definition=step.definition,
        state=step.phase,
        output_json=output if whole or not body else "",
        output_digest=hashlib.sha256(body).hexdigest() if body else "",
        output_bytes=len(body),
        attempts=[
            api.StepAttempt(
                attempt=a.attempt,
                dispatched_at=timestamp(a.dispatched_us),
                ended_at=timestamp(a.ended_us) if a.ended_us else None,
                status=a.status,
                error=a.error,
                rerun=a.rerun,
                compensation=a.compensation,
                usage=a.usage,
                model=a.model,
                provider_request_id=a.provider_request_id,
            )
            for a in step.history
        ],
    )


_CANCEL = ev.TURN_VERB_CANCEL
_BY_PHASE: dict[int, tuple[ev.WaitReason, str, tuple[ev.TurnVerb, ...]]] = {
    api.STEP_STATE_RUNNING: (
        ev.WAIT_REASON_STEPS,
        "the attempt is given up and its contract decides",
        (_CANCEL,),
    ),
    api.STEP_STATE_BACKING_OFF: (ev.WAIT_REASON_RETRY_BACKOFF, "the step is tried again", (_CANCEL,)),
    api.STEP_STATE_WAITING: (
        ev.WAIT_REASON_HUMAN,
        "the step fails for want of an answer",
        (ev.TURN_VERB_ANSWER, _CANCEL),
    ),
    api.STEP_STATE_NEEDS_REVIEW: (
        ev.WAIT_REASON_NEEDS_REVIEW,
        "the turn times out",
        (ev.TURN_VERB_SETTLE, _CANCEL),
    ),
}


def explain(session: Session, turn: Turn) -> rpc.ExplainTurnResponse:
    """What the turn waits for, outermost first; empty once it has finished."""
    answer = rpc.ExplainTurnResponse(state=turn.phase)
    if turn.phase == api.TURN_STATE_FINISHED:
        return answer
    if turn.phase == api.TURN_STATE_QUEUED:
        ahead = (session.active, *session.queue) if session.active else session.queue
        for other in ahead:
            if other.turn_id == turn.turn_id:
                break
            answer.waits.add(
                reason=ev.WAIT_REASON_QUEUED,
                blocking_turn_id=other.turn_id,
                since=timestamp(turn.submitted_us),
                until=timestamp(turn.deadline_us),
                then="this turn times out",
                ended_by=[_CANCEL],
            )
        return answer
    if turn.paused:
        answer.waits.add(
            reason=ev.WAIT_REASON_PAUSED,
            since=timestamp(turn.waiting.since_us if turn.waiting else turn.submitted_us),
            until=timestamp(turn.deadline_us),
            then="the turn times out",
            ended_by=[ev.TURN_VERB_RESUME, _CANCEL],
        )
    for key, step in turn.steps.items():
        row = _BY_PHASE.get(step.phase)
        if row is None:
            continue
        reason, then, verbs = row
        until = step.wake_us or turn.deadline_us
        if step.orphaned:
            reason, then = ev.WAIT_REASON_SETTLE_GRACE, "its outcome counts as unknown"
        elif step.phase == api.STEP_STATE_RUNNING and step.dispatch is not None:
            until = micros(step.dispatch.deadline)
        if turn.deadline_us < until:
            until, then = turn.deadline_us, "the turn times out"
        if reason == ev.WAIT_REASON_RETRY_BACKOFF and step.error is not None:
            why = f"{step.error.reason}: {step.error.message[:MAX_WHY]}"
            then += f"; attempt {step.attempt} failed with {why}"
        since = step.history[-1].dispatched_us if step.history else turn.submitted_us
        if step.history and step.history[-1].ended_us:
            since = step.history[-1].ended_us
        answer.waits.add(
            reason=reason,
            step_key=key,
            since=timestamp(since),
            until=timestamp(until),
            then=then,
            ended_by=verbs,
        )
    return answer
