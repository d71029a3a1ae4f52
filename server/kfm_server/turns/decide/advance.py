"""Advance: from a state, record and start everything that can be recorded and started now."""

from typing import Final

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.models import DEFAULT_PERSONALITY
from kfm_server.turns.decide.dispatch import dispatch, ready
from kfm_server.turns.decide.draft import Draft, error
from kfm_server.turns.decide.ending import end, finish, outcome_unknown
from kfm_server.turns.decide.grow import grow
from kfm_server.turns.decide.plan import make_plan
from kfm_server.turns.decide.waiting import back_off, wait
from kfm_server.turns.state import MODEL_KINDS, NEVER_STARTED, Step, fatal, is_over, told_of
from kfm_server.turns.times import timestamp


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
                finish(draft, queued.turn_id)
        if draft.session.active is not None:
            return


def _start_next(draft: Draft) -> bool:
    turn = draft.session.queue[0]
    if turn.ending:
        finish(draft, turn.turn_id)
        return False
    world = draft.world
    named = world.personality(turn.request.personality)
    personality = named or DEFAULT_PERSONALITY
    draft.record(
        turn.turn_id,
        ev.TurnStateEvent(
            change=ev.TURN_CHANGE_STARTED,
            personality_digest=personality.digest,
            # What no model is asked with, and no tool comes from, needs no keeping. A fork asks the models of its plan, whatever its
            # personality's planner is by now.
            personality_json=personality.encode()
            if turn.asks or personality.own_tools or (world.models and personality.planner != "rules")
            else "",
            schema_release=world.schema_release,
            tools_digest=world.tools_digest,
            deadline=timestamp(turn.deadline_us),
        ),
    )
    if not turn.plan_id or (turn.asks and named is None):
        draft.record(turn.turn_id, make_plan(draft.turn(turn.turn_id), world))
    return True


def _advance_turn(draft: Draft, turn_id: str) -> None:
    _expire(draft, turn_id)
    while _go_on(draft, turn_id):
        pass


def _go_on(draft: Draft, turn_id: str) -> bool:
    """Settle what has ended and start what may; True if a step could not be started, which is to be settled too."""
    turn = draft.turn(turn_id)
    if turn.ending:
        end(draft, turn)
        return False
    if turn.refusal is not None:
        finish(draft, turn_id)
        return False
    while True:
        told = told_of(turn)
        for key, step in turn.steps.items():
            if step.phase == api.STEP_STATE_FAILED or step.compensate:
                _mend(draft, turn_id, key)
            if key in told:
                _leave_out(draft, turn_id, key, told)
        if not (turn.asks and grow(draft, turn_id)):
            break
        turn = draft.turn(turn_id)
        if turn.refusal is not None:
            finish(draft, turn_id)
            return False
    turn = draft.turn(turn_id)
    if any(s.phase == api.STEP_STATE_FAILED and fatal(turn, s, told) for s in turn.steps.values()):
        end(draft, turn)
        return False
    if all(is_over(step) for step in turn.steps.values()):
        finish(draft, turn_id)
        return False
    if draft.hold:
        return False
    not_started = False
    if not turn.paused:
        for step in ready(turn, draft.now_us):
            key = step.definition.key
            dispatch(draft, turn_id, step)
            if draft.turn(turn_id).steps[key].phase == api.STEP_STATE_FAILED:
                not_started = True
                if key not in told:
                    break  # the turn's end: nothing more starts
    if not not_started:
        wait(draft, turn_id)
    return not_started


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


_FENCED_TRIES: Final = 4
"""However often its owner was not sure of its lease, the step waits no longer than after so many: it will be sure again."""


def _mend(draft: Draft, turn_id: str, key: str) -> None:
    """A failed attempt: undo it, try again after a back-off, or leave it failed."""
    turn = draft.turn(turn_id)
    step = turn.steps[key]
    if step.to_undo:
        if not turn.paused and not draft.hold:
            _undo(draft, turn_id, step)
        return
    if step.phase != api.STEP_STATE_FAILED:
        return
    may_retry = (
        step.error is not None
        and (step.error.retryable or step.error.reason == "REASON_STEP_OUTCOME_UNKNOWN")
        and (
            step.definition.effect != types.EFFECT_CONTRACT_AT_MOST_ONCE
            or step.error.reason in NEVER_STARTED  # so that starting it is not a second start
        )
    )
    if may_retry and step.attempt > 0 and step.tries < turn.request.limits.max_attempts:
        # One that never started does not count as a try: what keeps it from starting may last, all the same.
        asked_us = int(step.error.metadata.get("retry_after_ms", "0") or "0") * 1000 if step.error else 0
        if draft.now_us + asked_us < turn.deadline_us:  # who asks for more time than there is, has failed
            tries = step.tries or step.attempt
            if step.error is not None and step.error.reason == "REASON_FENCED":
                tries = min(tries, _FENCED_TRIES)
            back_off(draft, turn_id, key, tries, asked_us)


def _leave_out(draft: Draft, turn_id: str, key: str, told: frozenset[str]) -> None:
    """A step that follows one without a result can never run; where a model is told of that, it is left out."""
    turn = draft.turn(turn_id)
    step = turn.steps[key]
    if step.phase != api.STEP_STATE_PENDING or step.definition.kind in MODEL_KINDS:
        return
    before = (turn.steps[name] for name in step.definition.depends_on)
    lost = next((s for s in before if is_over(s) and s.phase != api.STEP_STATE_SUCCEEDED), None)
    if lost is None or fatal(turn, lost, told):
        return
    why = error("REASON_STEP_FAILED", f"it follows {lost.definition.key}, which did not succeed")
    draft.record(
        turn_id,
        ev.StepResultEvent(step_key=key, status=ev.STEP_STATUS_SKIPPED, error=why, synthesised=True),
    )


def _undo(draft: Draft, turn_id: str, step: Step) -> None:
    """Undo a failed attempt: at once, and after a try that failed, later; in the end a person looks."""
    key = step.definition.key
    if step.phase == api.STEP_STATE_BACKING_OFF:
        if (step.wake_us or 0) <= draft.now_us:
            dispatch(draft, turn_id, step, compensation=True)
    elif step.dispatch is None or not step.dispatch.compensation:
        dispatch(draft, turn_id, step, compensation=True)
    elif step.compensations < draft.turn(turn_id).request.limits.max_attempts:
        back_off(draft, turn_id, key, step.compensations)
    else:
        outcome_unknown(draft, turn_id, key)


def redispatch(draft: Draft, turn_id: str, key: str) -> None:
    """Start a step again whose process died, as its contract allows, and count it."""
    if draft.hold:
        return
    step = draft.turn(turn_id).steps[key]
    if step.reruns >= draft.world.max_reruns:
        outcome_unknown(draft, turn_id, key, "REASON_STEP_CRASHES_PROCESS")
        return
    compensation = bool(step.dispatch and step.dispatch.compensation)
    dispatch(draft, turn_id, step, rerun=True, compensation=compensation)
