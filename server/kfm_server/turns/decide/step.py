"""An attempt ended: whether its result counts, and what follows."""

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.decide.advance import advance, redispatch
from kfm_server.turns.decide.draft import Draft
from kfm_server.turns.decide.ending import cancelled
from kfm_server.turns.state import Session, Step


def awaited(session: Session, turn_id: str, key: str, attempt: int) -> Step | None:
    """The step whose running attempt this is; None when the attempt was superseded or has ended."""
    turn = session.turn(turn_id)
    step = turn.steps.get(key) if turn is not None else None
    if step is None or step.phase != api.STEP_STATE_RUNNING or step.attempt != attempt:
        return None
    return step


def attempt_interrupted(draft: Draft, turn_id: str, key: str, attempt: int) -> None:
    """An attempt that surely left nothing behind runs again; the step's own tries are not touched."""
    if awaited(draft.session, turn_id, key, attempt) is None:
        return
    if draft.turn(turn_id).ending:
        cancelled(draft, turn_id, key)
    else:
        redispatch(draft, turn_id, key)
    advance(draft)


def attempt_ended(draft: Draft, turn_id: str, attempt: int, result: ev.StepResultEvent) -> bool:
    """Record a result and go on. False if it is late: it is refused, and nothing is recorded."""
    step = awaited(draft.session, turn_id, result.step_key, attempt)
    if step is None:
        return False
    timed_out = result.error.reason == "REASON_STEP_TIMEOUT"
    if step.definition.effect == types.EFFECT_CONTRACT_AT_MOST_ONCE and timed_out:
        # Given up in the middle: whether the effect happened is not known, and it may not run again.
        result.status = ev.STEP_STATUS_UNKNOWN
    draft.record(turn_id, result, attempt)
    advance(draft)
    return True
