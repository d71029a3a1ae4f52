"""When a start counts as the repeat of one before it."""

import pytest
from kfm_mcp.starts import WINDOW_S, Starts

pytestmark = pytest.mark.requirement("E4")

CALL = ("client 1", "hello")


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1_000 * WINDOW_S

    def __call__(self) -> float:
        return self.now


def test_an_identical_call_goes_under_the_same_key_until_the_window_has_passed() -> None:
    clock = Clock()
    starts = Starts(clock)
    first = starts.key(*CALL)
    clock.now += WINDOW_S - 1
    assert starts.key(*CALL) == first
    clock.now += 1
    assert starts.key(*CALL) != first


def test_other_words_or_another_client_are_another_call() -> None:
    starts = Starts(Clock())
    keys = {
        starts.key(*call)
        for call in (CALL, ("client 1", "hello!"), ("client 2", "hello"), ("client 1hello", ""))
    }
    assert len(keys) == 4


def test_once_the_turn_is_named_an_identical_call_is_another_and_its_repeats_are_its_own() -> None:
    starts = Starts(Clock())
    first = starts.key(*CALL)
    assert not starts.started("turn_1", *CALL)
    assert starts.started("turn_1", *CALL)
    starts.named("turn_1")
    second = starts.key(*CALL)
    assert second != first
    assert starts.key(*CALL) == second
    starts.started("turn_2", *CALL)
    starts.named("turn_2")
    assert starts.key(*CALL) not in (first, second)


def test_another_process_makes_the_same_key_so_that_a_crash_between_two_tries_starts_nothing_twice() -> None:
    clock = Clock()
    key = Starts(clock).key(*CALL)
    clock.now += WINDOW_S / 2
    after = Starts(clock)
    assert after.key(*CALL) == key
    assert after.young


def test_what_is_remembered_is_bounded() -> None:
    starts = Starts(Clock())
    for number in range(10_000):
        starts.key("client", str(number))
        starts.started(f"turn_{number}", "client", str(number))
        if number % 2:
            starts.named(f"turn_{number}")
    assert max(len(held) for held in vars(starts).values() if hasattr(held, "__len__")) <= 4096
