"""Fold: the same events always give the same state, and a history with a hole is refused."""

import pytest
from google.protobuf.message import Message
from kfm.catalogue.events import unpack
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm_server.turns.fold import HistoryError, begin, fold_session, fold_turn
from kfm_server.turns.state import Session, Turn
from kfm_server.turns.times import US

from tests.support.deciding import Desk

pytestmark = pytest.mark.requirement("R4")

ONCE = {"key": "a", "tool": "ledger_once"}
IDEMPOTENT = {"key": "b", "tool": "ledger_idempotent"}
UNDOABLE = {"key": "c", "tool": "ledger_compensatable"}


def eventful() -> Desk:
    """A session after a retry, a takeover, a second message and a settlement."""
    desk = Desk()
    desk.submit("turn_1", ONCE, IDEMPOTENT, UNDOABLE)
    desk.submit("turn_2", IDEMPOTENT)
    desk.ended("turn_1", "b", 1, ev.STEP_STATUS_FAILED)
    desk.wait(US)
    desk.taken_over(clean=True)
    desk.ended("turn_1", "c", 2, compensation=True)
    desk.ask("turn_1", ev.TURN_VERB_SETTLE, step_key="a", settle_as=ev.SETTLE_AS_FAILED)
    return desk


def folded(log: list[envelope_pb2.Envelope]) -> Session:
    session = Session("ses_1")
    for envelope in log:
        session = fold_session(session, envelope, unpack(envelope))
    return session


def history(desk: Desk, turn_id: str) -> list[tuple[envelope_pb2.Envelope, Message]]:
    return [(e, unpack(e)) for e in desk.log if e.turn_id == turn_id]


def test_the_log_alone_gives_the_state_that_the_decisions_left() -> None:
    desk = eventful()
    assert folded(desk.log) == desk.session


def test_the_log_of_unfinished_turns_is_enough() -> None:
    desk = eventful()
    live = {t.turn_id for t in (desk.session.active, *desk.session.queue) if t is not None}
    assert folded([e for e in desk.log if e.turn_id in live]) == desk.session


def test_every_prefix_of_a_log_folds() -> None:
    desk = eventful()
    for length in range(len(desk.log) + 1):
        folded(desk.log[:length])


def test_a_gap_is_refused() -> None:
    (first, payload), _, third, *_ = history(eventful(), "turn_1")
    with pytest.raises(HistoryError, match="event 3 follows 1"):
        fold_turn(begin(first, payload), *third)  # type: ignore[arg-type]


def test_a_repeat_is_refused() -> None:
    (first, payload), second, *_ = history(eventful(), "turn_1")
    turn = fold_turn(begin(first, payload), *second)  # type: ignore[arg-type]
    with pytest.raises(HistoryError, match="event 2 follows 2"):
        fold_turn(turn, *second)


def test_an_event_after_the_end_is_refused() -> None:
    desk = eventful()
    events = history(desk, "turn_1")
    turn: Turn | None = None
    for envelope, payload in events:
        turn = begin(envelope, payload) if turn is None else fold_turn(turn, envelope, payload)  # type: ignore[arg-type]
    assert turn is not None
    late = envelope_pb2.Envelope(turn_id="turn_1", sequence=turn.sequence + 1)
    with pytest.raises(HistoryError, match="follows its end"):
        fold_turn(turn, late, ev.TurnControlEvent(verb=ev.TURN_VERB_CANCEL))


def test_an_event_of_a_turn_that_is_not_there_is_refused() -> None:
    stray = envelope_pb2.Envelope(event_id="turn_9.2", turn_id="turn_9", sequence=2)
    with pytest.raises(HistoryError, match="does not hold"):
        fold_session(Session("ses_1"), stray, ev.TurnControlEvent(verb=ev.TURN_VERB_CANCEL))


def test_a_rerun_is_not_counted_as_a_try_and_a_result_forgets_the_reruns() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.taken_over(clean=True)
    step = desk.step("turn_1", "b")
    assert (step.attempt, step.tries, step.reruns) == (2, 1, 1)
    desk.ended("turn_1", "b", 2, ev.STEP_STATUS_FAILED)
    assert desk.step("turn_1", "b").reruns == 0


def test_what_was_undone_is_as_if_its_attempt_had_failed() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE)
    desk.ended("turn_1", "c", 1, ev.STEP_STATUS_UNKNOWN)
    assert desk.step("turn_1", "c").compensate
    desk.ended("turn_1", "c", 2, compensation=True)
    step = desk.step("turn_1", "c")
    assert (step.compensate, step.compensations, step.phase) == (False, 0, api.STEP_STATE_BACKING_OFF)
