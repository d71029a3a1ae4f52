"""Somebody asks something of a turn."""

from kfm.catalogue.errors import StateConflict, StepNotFound, TurnFinished
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api

from kfm_server.turns.decide.advance import advance
from kfm_server.turns.decide.draft import Draft, error
from kfm_server.turns.state import Step, StepPhase, Turn


def control(draft: Draft, turn_id: str, asked: ev.TurnControlEvent) -> None:
    """Record what was asked and go on.

    Raises TurnFinished, StepNotFound or StateConflict; nothing is recorded then.
    """
    turn = draft.session.turn(turn_id)
    if turn is None:
        raise TurnFinished(metadata={"turn_id": turn_id})
    match asked.verb:
        case ev.TURN_VERB_CANCEL:
            pass
        case ev.TURN_VERB_PAUSE if turn.paused:
            raise StateConflict("the turn is paused already")
        case ev.TURN_VERB_RESUME if not turn.paused:
            raise StateConflict("the turn is not paused")
        case ev.TURN_VERB_ANSWER:
            _step(turn, asked.step_key, api.STEP_STATE_WAITING, "wait for an answer")
        case ev.TURN_VERB_SETTLE:
            _step(turn, asked.step_key, api.STEP_STATE_NEEDS_REVIEW, "need a review")
        case _:
            pass
    result = _result(turn, asked)
    told = ev.TurnControlEvent()
    told.CopyFrom(asked)
    if result is not None:
        told.output_json = ""  # it stands in the result, where a large one goes to a blob
    draft.record(turn_id, told)
    if result is not None:
        draft.record(turn_id, result, turn.steps[asked.step_key].attempt)
    advance(draft)


def _step(turn: Turn, key: str, phase: StepPhase, need: str) -> Step:
    step = turn.steps.get(key)
    if step is None:
        raise StepNotFound(metadata={"turn_id": turn.turn_id, "step_key": key})
    if step.phase != phase:
        now = StepPhase.Name(step.phase).removeprefix("STEP_STATE_").lower()
        raise StateConflict(f"step {key} does not {need}: it is {now}")
    return step


def _result(turn: Turn, asked: ev.TurnControlEvent) -> ev.StepResultEvent | None:
    if asked.verb == ev.TURN_VERB_ANSWER or (
        asked.verb == ev.TURN_VERB_SETTLE and asked.settle_as == ev.SETTLE_AS_SUCCEEDED
    ):
        return ev.StepResultEvent(
            step_key=asked.step_key,
            status=ev.STEP_STATUS_SUCCEEDED,
            output_json=asked.output_json or "null",
            synthesised=asked.verb == ev.TURN_VERB_SETTLE,
        )
    if asked.verb == ev.TURN_VERB_SETTLE and asked.settle_as == ev.SETTLE_AS_FAILED:
        return ev.StepResultEvent(
            step_key=asked.step_key,
            status=ev.STEP_STATUS_FAILED,
            error=error("REASON_STEP_FAILED", asked.reason or "settled as failed"),
            synthesised=True,
        )
    return None
