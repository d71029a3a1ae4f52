"""What a turn is said to wait for, and until when."""

import pytest
from kfm.event.v1 import turn_events_pb2 as ev
from kfm_server.turns.times import US, micros
from kfm_server.turns.view import explain

from tests.support.deciding import BEGIN, Desk

pytestmark = pytest.mark.requirement("R9")


@pytest.mark.parametrize(
    ("step_s", "turn_s", "until_s", "then"),
    [(5, 60, 5, "the step fails for want of an answer"), (60, 5, 5, "the turn times out")],
)
def test_a_question_waits_until_the_earlier_of_its_own_time_and_the_turns(
    step_s: int, turn_s: int, until_s: int, then: str
) -> None:
    desk = Desk()
    human = {"key": "h", "kind": "human", "instructions": "Shall we?", "timeout_ms": step_s * 1000}
    desk.submit("turn_1", human, timeout_us=turn_s * US)
    turn = desk.session.turn("turn_1")
    assert turn is not None
    (wait,) = explain(desk.session, turn).waits
    assert (wait.reason, wait.then) == (ev.WAIT_REASON_HUMAN, then)
    assert micros(wait.until) == BEGIN + until_s * US


def test_a_running_step_waits_no_longer_than_its_turn() -> None:
    desk = Desk()
    desk.submit("turn_1", {"key": "b", "tool": "ledger_idempotent"}, timeout_us=5 * US)
    turn = desk.session.turn("turn_1")
    assert turn is not None
    (wait,) = explain(desk.session, turn).waits
    assert wait.reason == ev.WAIT_REASON_STEPS
    assert micros(wait.until) == BEGIN + 5 * US


def test_a_back_off_says_what_went_wrong() -> None:
    desk = Desk()
    desk.submit("turn_1", {"key": "b", "tool": "ledger_idempotent"})
    desk.ended("turn_1", "b", 1, ev.STEP_STATUS_FAILED, reason="REASON_TOOL_UNAVAILABLE")
    (wait,) = explain(desk.session, desk.turn("turn_1")).waits
    assert wait.reason == ev.WAIT_REASON_RETRY_BACKOFF
    why = "attempt 1 failed with REASON_TOOL_UNAVAILABLE: it failed"
    assert wait.then == f"the step is tried again; {why}"
