"""Decide: from a state, what is recorded and what is started. Many of these were simulator seeds once."""

from typing import Any

import pytest
from kfm.catalogue.errors import Overloaded, PermissionDenied, SessionBusy, StateConflict, TurnFinished
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm_server.turns.decide.draft import Start, Stop
from kfm_server.turns.decide.waiting import next_wake_us
from kfm_server.turns.state import Waiting
from kfm_server.turns.times import US

from tests.support.deciding import Desk

pytestmark = pytest.mark.requirement("R4")

ONCE = {"key": "a", "tool": "ledger_once"}
IDEMPOTENT = {"key": "b", "tool": "ledger_idempotent"}
UNDOABLE = {"key": "c", "tool": "ledger_compensatable"}
HUMAN = {"key": "h", "kind": "human", "instructions": "Shall we?", "timeout_ms": 5_000}
DEADLINE = 33 * US


def results(desk: Desk, key: str) -> list[tuple[int, bool]]:
    return [(r.status, r.compensation) for r in desk.of(ev.StepResultEvent) if r.step_key == key]


# -- messages


def test_a_message_in_an_idle_session_starts_at_once() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    assert desk.starts == [Start("turn_1", "b", 1)]


def test_enqueued_turns_run_one_after_the_other_and_the_next_starts_with_the_end_of_the_first() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.submit("turn_2", IDEMPOTENT)
    assert desk.starts == []
    desk.ended("turn_1", "b", 1)
    assert desk.finish("turn_1").outcome == ev.OUTCOME_SUCCEEDED
    assert desk.starts == [Start("turn_2", "b", 1)]


def test_reject_refuses_while_a_turn_runs() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    with pytest.raises(SessionBusy):
        desk.submit("turn_2", IDEMPOTENT, on_busy=ev.BUSY_MODE_REJECT)
    assert not desk.of(ev.TurnEvent, "turn_2")


def test_a_session_that_runs_turns_of_one_tenant_takes_none_of_another() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT, tenant_id="one")
    with pytest.raises(PermissionDenied):
        desk.submit("turn_2", IDEMPOTENT, tenant_id="two", on_busy=ev.BUSY_MODE_INTERRUPT)
    assert desk.stops == []


def test_every_event_after_the_first_names_the_one_it_follows_from() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT, ONCE)
    desk.ended("turn_1", "a", 1)
    desk.ended("turn_1", "b", 1)
    causes = {e.event_id: e.causation_id for e in desk.log}
    assert [cause in causes for cause in causes.values()] == [False] + [True] * (len(causes) - 1)
    dispatches = {e.event_id for e in desk.log if e.type.startswith("StepEvent.")}
    ended = {e.causation_id for e in desk.log if e.type.startswith("StepResultEvent.")}
    assert ended == dispatches


def test_a_full_queue_is_refused_with_a_time_to_come_back() -> None:
    desk = Desk(max_queued_turns=1)
    desk.submit("turn_1", IDEMPOTENT)
    desk.submit("turn_2", IDEMPOTENT)
    with pytest.raises(Overloaded) as refused:
        desk.submit("turn_3", IDEMPOTENT)
    assert refused.value.retry_after_ms


@pytest.mark.parametrize(
    ("mode", "dropped"), [(ev.BUSY_MODE_INTERRUPT, False), (ev.BUSY_MODE_ROLLBACK, True)]
)
def test_interrupt_and_rollback_cancel_the_turn_and_go_before_the_queue(
    mode: ev.BusyMode, dropped: bool
) -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.submit("turn_2", IDEMPOTENT)
    desk.submit("turn_3", IDEMPOTENT, on_busy=mode)
    end = desk.finish("turn_1")
    assert (end.outcome, end.dropped) == (ev.OUTCOME_CANCELLED, dropped)
    assert desk.starts == [Start("turn_3", "b", 1)]
    assert [t.turn_id for t in desk.session.queue] == ["turn_2"]


# -- ends


def test_cancel_answers_what_may_be_cancelled_and_awaits_what_may_not() -> None:
    desk = Desk()
    desk.submit("turn_1", ONCE, IDEMPOTENT)
    desk.ask("turn_1", ev.TURN_VERB_CANCEL)
    assert desk.stops == [Stop("turn_1", "b", 1)]
    assert results(desk, "b") == [(ev.STEP_STATUS_CANCELLED, False)]
    assert desk.session.active is not None
    desk.ended("turn_1", "a", 1)
    assert desk.session.idle
    assert list(desk.finish().effects_done) == ["a", "b"]  # b was cut short: its effect may stand


def test_a_cancel_of_a_queued_turn_ends_it_alone() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.submit("turn_2", IDEMPOTENT)
    desk.ask("turn_2", ev.TURN_VERB_CANCEL)
    assert desk.finish("turn_2").outcome == ev.OUTCOME_CANCELLED
    assert desk.turn("turn_1").steps["b"].phase == api.STEP_STATE_RUNNING


def test_a_turn_that_timed_out_ends_also_in_the_queue() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.submit("turn_2", IDEMPOTENT, timeout_us=US)
    desk.wait(2 * US)
    assert desk.finish("turn_2").outcome == ev.OUTCOME_TIMED_OUT


def test_a_late_result_is_refused_and_records_nothing() -> None:
    desk = Desk()
    desk.submit("turn_1", ONCE, IDEMPOTENT)
    desk.ask("turn_1", ev.TURN_VERB_CANCEL)
    before = len(desk.log)
    assert not desk.ended("turn_1", "b", 1)
    assert len(desk.log) == before


def test_a_verb_for_a_turn_that_has_ended_is_refused() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.ended("turn_1", "b", 1)
    with pytest.raises(TurnFinished):
        desk.ask("turn_1", ev.TURN_VERB_CANCEL)


# -- retries, pauses and people


def test_a_retry_waits_for_its_time_and_not_for_longer() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.ended("turn_1", "b", 1, ev.STEP_STATUS_FAILED)
    assert desk.starts == []
    desk.wait(US)
    assert desk.starts == [Start("turn_1", "b", 2)]


def test_tries_are_bounded_and_every_one_has_the_same_key() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    for attempt in (1, 2, 3):
        desk.ended("turn_1", "b", attempt, ev.STEP_STATUS_FAILED)
        desk.wait(60 * US) if attempt < 3 else None
    assert desk.finish().outcome == ev.OUTCOME_FAILED
    assert {s.key for s in desk.of(ev.StepEvent)} == {"turn_1:b"}


def test_an_attempt_that_never_started_uses_up_no_try() -> None:
    desk = Desk()
    desk.submit("turn_1", ONCE)
    for attempt in range(1, 6):
        desk.ended("turn_1", "a", attempt, ev.STEP_STATUS_FAILED, reason="REASON_FENCED")
        desk.wait(US << attempt)  # ever longer: what kept it from starting may last
    assert desk.starts == [Start("turn_1", "a", 6)]
    desk.ended("turn_1", "a", 6)
    assert desk.finish().outcome == ev.OUTCOME_SUCCEEDED


def test_at_most_once_is_not_tried_again_unless_it_was_never_started() -> None:
    desk = Desk()
    desk.submit("turn_1", ONCE)
    desk.ended("turn_1", "a", 1, ev.STEP_STATUS_FAILED, reason="REASON_FENCED")
    desk.wait(US)
    assert desk.starts == [Start("turn_1", "a", 2)]
    desk.ended("turn_1", "a", 2, ev.STEP_STATUS_FAILED)
    assert desk.finish().outcome == ev.OUTCOME_FAILED


def test_at_most_once_cut_by_its_timeout_waits_for_a_person() -> None:
    desk = Desk()
    desk.submit("turn_1", ONCE)
    desk.ended("turn_1", "a", 1, ev.STEP_STATUS_FAILED, reason="REASON_STEP_TIMEOUT")
    assert desk.step("turn_1", "a").phase == api.STEP_STATE_NEEDS_REVIEW


def test_a_pause_dispatches_nothing_and_a_resume_goes_on() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.ask("turn_1", ev.TURN_VERB_PAUSE)
    desk.ended("turn_1", "b", 1, ev.STEP_STATUS_FAILED)
    desk.wait(60 * US)
    assert desk.starts == []
    with pytest.raises(StateConflict):
        desk.ask("turn_1", ev.TURN_VERB_PAUSE)
    desk.ask("turn_1", ev.TURN_VERB_RESUME)
    assert desk.starts == [Start("turn_1", "b", 2)]


def test_a_question_that_nobody_answers_fails_in_time() -> None:
    desk = Desk()
    desk.submit("turn_1", HUMAN)
    desk.wait(6 * US)
    assert desk.finish().error.reason == "REASON_STEP_TIMEOUT"


# -- takeovers


def test_what_may_run_again_is_dispatched_again_under_the_same_key() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.taken_over(clean=False)
    first, second = desk.of(ev.StepEvent)
    assert (second.rerun, second.key) == (True, first.key)
    assert desk.starts == [Start("turn_1", "b", 2)]


def test_at_most_once_after_a_clean_takeover_waits_for_a_person() -> None:
    desk = Desk()
    desk.submit("turn_1", ONCE)
    desk.taken_over(clean=True)
    assert desk.step("turn_1", "a").phase == api.STEP_STATE_NEEDS_REVIEW
    assert desk.starts == []


def test_an_owner_that_may_be_frozen_is_given_its_time() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE)
    desk.taken_over(clean=False)
    assert desk.step("turn_1", "c").orphaned and desk.starts == []
    desk.wait(DEADLINE)
    assert desk.of(ev.StepEvent)[-1].compensation


def test_a_clean_takeover_after_an_unclean_one_still_gives_the_frozen_owner_its_time() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE)
    desk.taken_over(clean=False)
    desk.taken_over(clean=True)
    assert desk.step("turn_1", "c").orphaned and desk.starts == []


def test_a_step_that_kills_its_process_goes_to_review() -> None:
    desk = Desk(max_reruns=2)
    desk.submit("turn_1", IDEMPOTENT)
    for _ in range(3):
        desk.taken_over(clean=True)
    assert desk.step("turn_1", "b").phase == api.STEP_STATE_NEEDS_REVIEW


def test_a_cancel_while_a_frozen_owner_may_run_lists_the_effect() -> None:
    desk = Desk()
    desk.submit("turn_1", ONCE)
    desk.taken_over(clean=False)
    desk.ask("turn_1", ev.TURN_VERB_CANCEL)
    assert list(desk.finish().effects_done) == ["a"]


@pytest.mark.requirement("FT21")
def test_a_process_that_stops_records_what_ends_and_dispatches_nothing_and_the_next_goes_on() -> None:
    desk = Desk()
    desk.submit("turn_1", ONCE, IDEMPOTENT | {"depends_on": ["a"]}, UNDOABLE)
    desk.hold = True
    desk.ended("turn_1", "a", 1)
    desk.ended("turn_1", "c", 1, ev.STEP_STATUS_FAILED)
    desk.submit("turn_2", IDEMPOTENT)
    desk.wait(US)
    assert [s.step_key for s in desk.of(ev.StepEvent)] == ["a", "c"]
    desk.hold = False
    desk.taken_over(clean=True)
    assert [(s.step_key, s.compensation) for s in desk.of(ev.StepEvent)[2:]] == [("c", True), ("b", False)]


@pytest.mark.requirement("FT21")
def test_a_process_that_stops_leaves_what_it_finds_running_to_the_next() -> None:
    desk = Desk()
    desk.submit("turn_1", IDEMPOTENT)
    desk.hold = True
    desk.taken_over(clean=True)
    assert len(desk.of(ev.StepEvent)) == 1
    desk.hold = False
    desk.taken_over(clean=True)
    assert desk.starts == [Start("turn_1", "b", 2)]


# -- compensations


def undoing_again(*others: dict[str, Any], timeout_us: int = 3600 * US) -> Desk:
    """A turn in which a first try to undo step c has failed."""
    desk = Desk()
    desk.submit("turn_1", UNDOABLE, *others, timeout_us=timeout_us)
    desk.ended("turn_1", "c", 1, ev.STEP_STATUS_FAILED)
    desk.ended("turn_1", "c", 2, ev.STEP_STATUS_FAILED, compensation=True)
    assert desk.step("turn_1", "c").phase == api.STEP_STATE_BACKING_OFF
    return desk


def wake_to_undo(desk: Desk) -> None:
    """The session is looked at when it asked for it: then, and not before, it tries to undo c again."""
    wake = next_wake_us(desk.session)
    assert wake is not None and wake > desk.now_us
    desk.wait(wake - desk.now_us)
    sent = desk.step("turn_1", "c").dispatch
    assert [s.step_key for s in desk.starts] == ["c"]
    assert sent is not None and sent.compensation


def test_an_unknown_outcome_is_undone_and_then_tried_again() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE)
    desk.ended("turn_1", "c", 1, ev.STEP_STATUS_UNKNOWN)
    assert desk.of(ev.StepEvent)[-1].tool == "ledger_undo"
    desk.ended("turn_1", "c", 2, compensation=True)
    desk.wait(US)
    assert [s.tool for s in desk.of(ev.StepEvent)] == [
        "ledger_compensatable",
        "ledger_undo",
        "ledger_compensatable",
    ]


def test_every_try_to_undo_one_attempt_has_one_key() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE)
    desk.ended("turn_1", "c", 1, ev.STEP_STATUS_UNKNOWN)
    desk.ended("turn_1", "c", 2, ev.STEP_STATUS_FAILED, compensation=True)
    desk.wait(US)
    desk.ended("turn_1", "c", 3, compensation=True)
    desk.wait(US)
    desk.ended("turn_1", "c", 4, ev.STEP_STATUS_UNKNOWN)
    keys = [s.key for s in desk.of(ev.StepEvent) if s.compensation]
    assert keys == ["turn_1:c:undo1", "turn_1:c:undo1", "turn_1:c:undo4"]


def test_undoing_is_tried_again_after_a_back_off_also_while_the_turn_fails() -> None:
    desk = undoing_again(ONCE)
    desk.ended("turn_1", "a", 1, ev.STEP_STATUS_FAILED)
    assert desk.starts == []
    assert desk.turn("turn_1").waiting == Waiting(
        ev.WAIT_REASON_RETRY_BACKOFF, "c", desk.step("turn_1", "c").wake_us, desk.now_us
    )
    wake_to_undo(desk)
    desk.ended("turn_1", "c", 3, compensation=True)
    assert list(desk.finish().effects_done) == []


def test_undoing_that_never_started_uses_up_no_try_and_does_not_spin() -> None:
    desk = undoing_again()
    for attempt in range(3, 9):
        wake_to_undo(desk)
        desk.ended("turn_1", "c", attempt, ev.STEP_STATUS_FAILED, reason="REASON_FENCED", compensation=True)
        assert desk.starts == []
    assert desk.step("turn_1", "c").phase == api.STEP_STATE_BACKING_OFF


def test_a_turn_that_ends_while_undoing_backs_off_undoes_no_more_and_lists_the_effect() -> None:
    desk = undoing_again()
    desk.ask("turn_1", ev.TURN_VERB_CANCEL)
    assert (desk.finish().outcome, list(desk.finish().effects_done)) == (ev.OUTCOME_CANCELLED, ["c"])
    late = undoing_again(timeout_us=60 * US)
    late.now_us += 60 * US
    late.wait(0)
    assert (late.finish().outcome, list(late.finish().effects_done)) == (ev.OUTCOME_TIMED_OUT, ["c"])


def test_a_pause_holds_undoing_back_also_in_a_turn_that_fails() -> None:
    desk = undoing_again(ONCE)
    desk.ask("turn_1", ev.TURN_VERB_PAUSE)
    desk.ended("turn_1", "a", 1, ev.STEP_STATUS_FAILED)
    desk.wait(60 * US)
    assert desk.starts == []
    assert next_wake_us(desk.session) == desk.turn("turn_1").deadline_us
    desk.ask("turn_1", ev.TURN_VERB_RESUME)
    assert desk.starts == [Start("turn_1", "c", 3)]


def test_a_turn_that_fails_while_its_process_stops_leaves_the_undoing_to_the_next() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE, ONCE)
    desk.hold = True
    desk.ended("turn_1", "c", 1, ev.STEP_STATUS_FAILED)
    desk.ended("turn_1", "a", 1, ev.STEP_STATUS_FAILED)
    assert desk.starts == []
    desk.hold = False
    desk.taken_over(clean=True)
    assert desk.starts == [Start("turn_1", "c", 2)]


def test_a_takeover_while_undoing_backs_off_goes_on_at_its_time() -> None:
    desk = undoing_again()
    desk.taken_over(clean=False)
    assert desk.starts == []
    wake_to_undo(desk)


def test_a_turn_that_fails_undoes_what_a_frozen_owner_may_run_once_that_has_surely_ended() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE, HUMAN)
    desk.taken_over(clean=False)
    desk.wait(5 * US)  # nobody answered: the turn fails
    assert desk.starts == [] and desk.step("turn_1", "c").orphaned
    wake = next_wake_us(desk.session)
    assert wake is not None
    desk.wait(wake - desk.now_us)
    assert desk.starts == [Start("turn_1", "c", 2)]


def test_what_cannot_be_undone_waits_for_a_person() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE, max_attempts=2)
    desk.ended("turn_1", "c", 1, ev.STEP_STATUS_UNKNOWN)
    desk.ended("turn_1", "c", 2, ev.STEP_STATUS_FAILED, compensation=True)
    desk.wait(US)
    desk.ended("turn_1", "c", 3, ev.STEP_STATUS_FAILED, compensation=True)
    assert desk.step("turn_1", "c").phase == api.STEP_STATE_NEEDS_REVIEW
    desk.ask("turn_1", ev.TURN_VERB_CANCEL)
    assert list(desk.finish().effects_done) == ["c"]


def test_a_turn_that_ends_waits_for_a_running_compensation() -> None:
    desk = Desk()
    desk.submit("turn_1", UNDOABLE)
    desk.ended("turn_1", "c", 1, ev.STEP_STATUS_UNKNOWN)
    desk.ask("turn_1", ev.TURN_VERB_CANCEL)
    assert desk.stops == [] and desk.session.active is not None
    desk.ended("turn_1", "c", 2, compensation=True)
    assert desk.finish().outcome == ev.OUTCOME_CANCELLED
