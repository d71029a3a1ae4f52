"""The breaker of an endpoint: opens by failures in a row, lets one probe through, and hears only what is its business."""

import pytest
from kfm_server.breaker import (
    FAILURES,
    MOST_OPEN_SECONDS,
    OPEN_SECONDS,
    Breaker,
    BreakerOpen,
    Outcome,
)

pytestmark = pytest.mark.requirement("P2")


FAILING: tuple[Outcome, ...] = ("failed",) * FAILURES
LEAVING: tuple[Outcome, ...] = ("left",) * 100


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def call(breaker: Breaker, *outcomes: Outcome) -> None:
    for outcome in outcomes:
        breaker.leave(breaker.enter(), outcome)


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock)
    call(breaker, *FAILING)
    assert breaker.state == "open"
    return breaker


def test_failures_in_a_row_open_it_and_an_answer_between_them_does_not(clock: Clock) -> None:
    breaker = Breaker(clock)
    call(breaker, *FAILING[1:], "answered", *FAILING[1:])
    assert breaker.state == "closed"
    call(breaker, "failed")
    with pytest.raises(BreakerOpen) as refused:
        breaker.enter()
    assert refused.value.seconds == OPEN_SECONDS


def test_callers_that_leave_never_open_it(clock: Clock) -> None:
    breaker = Breaker(clock)
    call(breaker, *LEAVING)
    assert (breaker.state, breaker.failures) == ("closed", 0)


def test_after_its_time_one_probe_goes_through_and_the_others_wait(clock: Clock) -> None:
    breaker = opened(clock)
    clock.seconds += OPEN_SECONDS
    assert breaker.state == "half_open"
    probe = breaker.enter()
    for _ in range(10):
        with pytest.raises(BreakerOpen):
            breaker.enter()
    breaker.leave(probe, "answered")
    assert breaker.state == "closed"
    call(breaker, "answered", "answered")


def test_a_probe_that_fails_doubles_the_wait_up_to_a_bound(clock: Clock) -> None:
    breaker = opened(clock)
    waits: list[float] = []
    clock.seconds += OPEN_SECONDS
    for _ in range(8):
        call(breaker, "failed")
        with pytest.raises(BreakerOpen) as refused:
            breaker.enter()
        waits.append(refused.value.seconds)
        clock.seconds += refused.value.seconds
    assert waits[:3] == [20.0, 40.0, 80.0] and waits[-1] == MOST_OPEN_SECONDS
    call(breaker, "answered", *FAILING)
    with pytest.raises(BreakerOpen) as refused:
        breaker.enter()
    assert refused.value.seconds == OPEN_SECONDS, "an answer makes up for all"


def test_a_probe_whose_caller_leaves_lets_another_try(clock: Clock) -> None:
    breaker = opened(clock)
    clock.seconds += OPEN_SECONDS
    call(breaker, "left")
    call(breaker, "answered")
    assert breaker.state == "closed"


def test_what_began_before_it_opened_has_no_say(clock: Clock) -> None:
    breaker = Breaker(clock)
    early = breaker.enter()
    call(breaker, *FAILING)
    breaker.leave(early, "answered")
    assert breaker.state == "open"


def test_how_soon_it_opens_and_for_how_long_can_be_said(clock: Clock) -> None:
    breaker = Breaker(clock, failures=2, open_seconds=1.0)
    call(breaker, "failed", "failed")
    with pytest.raises(BreakerOpen) as refused:
        breaker.enter()
    assert refused.value.seconds == 1.0
    clock.seconds += 1.0
    call(breaker, "answered")
    assert breaker.state == "closed"
