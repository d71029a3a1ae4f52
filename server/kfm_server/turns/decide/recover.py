"""After a crash or a takeover: what each contract allows for attempts that nobody runs any more."""

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api

from kfm_server.turns.decide.advance import advance, redispatch
from kfm_server.turns.decide.dispatch import may_rerun, on_a_pool
from kfm_server.turns.decide.draft import Adopt, Draft
from kfm_server.turns.decide.ending import cancelled, outcome_unknown
from kfm_server.turns.decide.step import awaited
from kfm_server.turns.state import Step, Turn
from kfm_server.turns.times import micros, timestamp


def recover(draft: Draft, *, clean: bool) -> None:
    """Take up a session that another process left, by the table of ENGINE section 5.

    `clean` says that the process before is known to be dead. If it is not, an attempt whose contract forbids a
    second start is left until it has surely ended: its latest start plus its timeout, which is its deadline. So is
    one that was left before: the process before is not the one that ran it. What a worker may be performing is
    asked for first: it does not die with the process that handed it out.
    """
    turn = draft.session.active
    if turn is not None:
        for key, step in turn.steps.items():
            if step.phase != api.STEP_STATE_RUNNING or step.dispatch is None:
                continue
            if on_a_pool(step) and not (turn.ending and may_rerun(step)):
                draft.adopts.append(Adopt(turn.turn_id, key, step.attempt, soon=not clean))
            else:
                _leave(
                    draft, turn, step, 0 if clean and not step.orphaned else micros(step.dispatch.deadline)
                )
    advance(draft)


def attempt_lost(draft: Draft, turn_id: str, key: str, attempt: int, gone_us: int) -> None:
    """Whoever performed the attempt is gone, and how far it came is not known; by `gone_us` it has surely ended."""
    step = awaited(draft.session, turn_id, key, attempt)
    if step is not None:
        _leave(draft, draft.turn(turn_id), step, gone_us)
    advance(draft)


def _leave(draft: Draft, turn: Turn, step: Step, gone_us: int) -> None:
    """Run it again, or settle it once it has surely ended, as its contract says."""
    key = step.definition.key
    if may_rerun(step):
        if turn.ending:
            cancelled(draft, turn.turn_id, key)
        else:
            redispatch(draft, turn.turn_id, key)
        return
    if draft.now_us >= gone_us:
        outcome_unknown(draft, turn.turn_id, key)
        return
    if on_a_pool(step):  # it is asked for again until then: its result counts, if it comes
        draft.adopts.append(Adopt(turn.turn_id, key, step.attempt))
    if not step.orphaned:
        draft.record(
            turn.turn_id,
            ev.TurnStateEvent(
                change=ev.TURN_CHANGE_WAITING,
                wait_reason=ev.WAIT_REASON_SETTLE_GRACE,
                step_key=key,
                wake_at=timestamp(gone_us),
                ended_by=ev.TURN_VERB_CANCEL,
            ),
        )
