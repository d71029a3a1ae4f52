"""A message arrives: what happens to the session that it is for."""

from kfm.catalogue.errors import Overloaded, PermissionDenied, SessionBusy
from kfm.event.v1 import turn_events_pb2 as ev

from kfm_server.context import ExecutionContext
from kfm_server.turns.decide.advance import advance
from kfm_server.turns.decide.draft import Draft
from kfm_server.turns.decide.plan import taken_over
from kfm_server.turns.state import Turn


def submit(
    draft: Draft,
    context: ExecutionContext,
    turn_id: str,
    request: ev.TurnEvent,
    parent: Turn | None = None,
) -> None:
    """Record a new turn and go on. A fork takes its plan and kept results from `parent`.

    Raises SessionBusy (REJECT while a turn runs), Overloaded (too many turns wait) and PermissionDenied (the session
    runs turns of another tenant); nothing is recorded then.
    """
    session = draft.session
    if session.tenant_id not in ("", context.tenant_id):
        raise PermissionDenied("the session belongs to another tenant")
    busy = session.active is not None or bool(session.queue)
    if busy and request.on_busy == ev.BUSY_MODE_REJECT:
        raise SessionBusy(metadata={"session_id": session.session_id})
    if len(session.queue) >= draft.world.max_queued_turns:
        raise Overloaded(
            f"{len(session.queue)} turns wait in this session; the limit max_queued_turns is {draft.world.max_queued_turns}",
            retry_after_ms=1000,
        )
    if session.active is not None and request.on_busy in (ev.BUSY_MODE_INTERRUPT, ev.BUSY_MODE_ROLLBACK):
        draft.record(
            session.active.turn_id,
            ev.TurnControlEvent(
                principal=context.principal,
                verb=ev.TURN_VERB_CANCEL,
                reason=f"turn {turn_id} took its place",
            ),
        )
    draft.submitted(context, turn_id, request)
    if parent is not None:
        plans, kept = taken_over(parent, turn_id, request.fork_step_key)
        for event in (*plans, *kept):
            draft.record(turn_id, event)
    advance(draft)
    waiting = draft.session.turn(turn_id)
    if waiting is not None and waiting in draft.session.queue:
        draft.record(
            turn_id,
            ev.TurnStateEvent(
                change=ev.TURN_CHANGE_QUEUED,
                wait_reason=ev.WAIT_REASON_QUEUED,
                ended_by=ev.TURN_VERB_CANCEL,
            ),
        )
