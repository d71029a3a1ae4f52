"""After a crash or a takeover: what each contract allows for attempts that nobody runs any more."""

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api

from kfm_server.turns.decide.advance import advance, redispatch
from kfm_server.turns.decide.dispatch import may_rerun
from kfm_server.turns.decide.draft import Draft
from kfm_server.turns.decide.ending import cancelled, outcome_unknown
from kfm_server.turns.times import micros, timestamp


def recover(draft: Draft, *, clean: bool) -> None:
    """Take up a session that another process left, by the table of ENGINE section 5.

    `clean` says that the process before is known to be dead. If it is not, an attempt whose contract forbids a
    second start is left until it has surely ended: its latest start plus its timeout, which is its deadline. So is
    one that was left before: the process before is not the one that ran it.
    """
    turn = draft.session.active
    if turn is not None:
        for key, step in turn.steps.items():
            if step.phase != api.STEP_STATE_RUNNING or step.dispatch is None:
                continue
            gone = micros(step.dispatch.deadline)
            if may_rerun(step):
                if turn.ending:
                    cancelled(draft, turn.turn_id, key)
                else:
                    redispatch(draft, turn.turn_id, key)
            elif (clean and not step.orphaned) or draft.now_us >= gone:
                outcome_unknown(draft, turn.turn_id, key)
            elif not step.orphaned:
                draft.record(
                    turn.turn_id,
                    ev.TurnStateEvent(
                        change=ev.TURN_CHANGE_WAITING,
                        wait_reason=ev.WAIT_REASON_SETTLE_GRACE,
                        step_key=key,
                        wake_at=timestamp(gone),
                        ended_by=ev.TURN_VERB_CANCEL,
                    ),
                )
    advance(draft)
