"""When a start counts as the repeat of one before it."""

import pytest
from kfm_mcp.starts import LIKELY_WINDOW_S, SURE_WINDOW_S, Caller, Starts

pytestmark = pytest.mark.requirement("E4")

ONE = Caller(("session", "1"), SURE_WINDOW_S)
CALL = "hello"


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("window", [SURE_WINDOW_S, LIKELY_WINDOW_S])
def test_an_identical_call_goes_under_the_same_key_until_the_window_has_passed(window: float) -> None:
    clock = Clock()
    starts, caller = Starts(clock), Caller(("peer",), window)
    first, _ = starts.key(caller, CALL)
    clock.now += window - 1
    assert starts.key(caller, CALL) == (first, True)
    clock.now += 1
    assert starts.key(caller, CALL) != (first, True)


def test_other_words_or_another_client_are_another_call() -> None:
    starts = Starts(Clock())
    other, alike = Caller(("session", "2"), SURE_WINDOW_S), Caller(("session1",), SURE_WINDOW_S)
    told = [starts.key(*call) for call in ((ONE, CALL), (ONE, "hello!"), (other, CALL), (alike, CALL))]
    assert len({key for key, _ in told}) == 4
    assert not any(again for _, again in told)


def test_another_process_makes_another_key() -> None:
    assert Starts(Clock()).key(ONE, CALL) != Starts(Clock()).key(ONE, CALL)


def test_once_the_turn_is_named_an_identical_call_is_another_and_its_repeats_are_its_own() -> None:
    starts = Starts(Clock())
    first, again = starts.key(ONE, CALL)
    assert not again
    starts.started("turn_1", ONE, CALL)
    assert starts.key(ONE, CALL) == (first, True)
    starts.named("turn_1")
    second, again = starts.key(ONE, CALL)
    assert second != first
    assert not again
    starts.started("turn_2", ONE, CALL)
    assert starts.key(ONE, CALL) == (second, True)
    starts.named("turn_2")
    assert starts.key(ONE, CALL)[0] not in (first, second)


def test_a_start_that_was_refused_has_no_repeat() -> None:
    starts = Starts(Clock())
    starts.key(ONE, CALL)
    starts.refused(ONE, CALL)
    assert not starts.key(ONE, CALL)[1]


def test_what_is_remembered_is_bounded() -> None:
    starts = Starts(Clock())
    for number in range(10_000):
        starts.key(ONE, str(number))
        starts.started(f"turn_{number}", ONE, str(number))
        if number % 3 == 0:
            starts.named(f"turn_{number}")
    assert max(len(held) for held in vars(starts).values() if hasattr(held, "__len__")) <= 4096
