"""Why a turn does not go on, until when, and what ends that."""

import zlib

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api

from kfm_server.turns.decide.dispatch import room
from kfm_server.turns.decide.draft import Draft
from kfm_server.turns.state import Session, Step, Turn
from kfm_server.turns.times import US, timestamp

_BACKOFF_FIRST_US = 200_000
_BACKOFF_MOST_US = 30 * US


def wait(draft: Draft, turn_id: str) -> None:
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


def back_off(draft: Draft, turn_id: str, key: str, tries: int, least_us: int = 0) -> None:
    """Record that the step waits before its next attempt, at least as long as the other side asked for."""
    wake_us = draft.now_us + max(least_us, backoff_us(tries, draft.turn(turn_id).last_event_id))
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


def next_wake_us(session: Session) -> int | None:
    """When the session must be looked at again though nothing arrives."""
    wakes = [t.deadline_us for t in session.queue if not t.ending]
    if session.active is not None:
        turn = session.active
        if not turn.ending:
            wakes.append(turn.deadline_us)
        # A retry that may not start now is started by what ends the pause or makes room: its time would only spin.
        full = room(turn) <= 0
        wakes += [
            s.wake_us
            for s in turn.steps.values()
            if s.wake_us is not None
            and not (s.phase == api.STEP_STATE_BACKING_OFF and (turn.paused or (full and not s.compensate)))
        ]
    return min(wakes, default=None)
