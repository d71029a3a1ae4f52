"""The clock that processes share, however wrong their own are."""

import asyncio

import pytest
from kfm_server.clock import ROUGH_SECONDS, SharedClock, SystemClock, VirtualClock

HOUR_US = 3600 * 1_000_000
SHARED_US = 1_700_000_000_000_000


class WrongClock(SystemClock):
    """A machine's clocks, moved by hand; its wall clock is wrong by an hour."""

    def __init__(self) -> None:
        self.seconds = 50.0

    def now_us(self) -> int:
        """An hour late."""
        return SHARED_US - HOUR_US

    def monotonic(self) -> float:
        """What the hand has set."""
        return self.seconds


async def measured(clock: SharedClock, local: WrongClock, trip: float, told_us: int) -> None:
    async def ask() -> int:
        local.seconds += trip
        return told_us

    await clock.measure(ask)


def test_before_the_first_measure_it_is_the_machines_time() -> None:
    assert SharedClock(WrongClock()).now_us() == SHARED_US - HOUR_US


@pytest.mark.requirement("R8", "R10")
async def test_a_wrong_wall_clock_does_not_matter_and_the_answer_is_from_the_middle_of_the_trip() -> None:
    local = WrongClock()
    clock = SharedClock(local)
    await measured(clock, local, trip=0.2, told_us=SHARED_US)
    assert clock.now_us() == SHARED_US + 100_000
    local.seconds += 3
    assert clock.now_us() == SHARED_US + 3_100_000


async def test_a_later_round_trip_that_took_too_long_changes_nothing() -> None:
    local = WrongClock()
    clock = SharedClock(local)
    await measured(clock, local, trip=0.0, told_us=SHARED_US)
    await measured(clock, local, trip=10.0, told_us=SHARED_US)  # frozen once it was answered
    assert clock.now_us() == SHARED_US + 10_000_000
    await measured(clock, local, trip=ROUGH_SECONDS, told_us=SHARED_US + HOUR_US)
    assert clock.now_us() == SHARED_US + HOUR_US + int(ROUGH_SECONDS * 500_000)


async def test_the_first_answer_counts_however_long_it_took() -> None:
    local = WrongClock()
    clock = SharedClock(local)
    await measured(clock, local, trip=4.0, told_us=SHARED_US)
    assert clock.now_us() == SHARED_US + 2_000_000


@pytest.mark.requirement("E5")
async def test_a_virtual_clock_calls_what_is_due_when_it_is_moved_on_and_nothing_before() -> None:
    clock = VirtualClock()
    called: list[str] = []
    done = asyncio.Event()
    clock.call_later(3600, lambda: called.append("an hour"))
    clock.call_later(1800, lambda: called.append("half an hour"))
    clock.call_later(86400, lambda: called.append("a day"))
    clock.call_later(60, lambda: called.append("cancelled")).cancel()
    before = clock.now_us()
    clock.advance(3600)
    asyncio.get_running_loop().call_later(0, done.set)
    async with asyncio.timeout(5):
        await done.wait()
    assert called == ["half an hour", "an hour"]
    assert clock.now_us() - before >= HOUR_US
    left = clock.next_us()
    assert left is not None and left > clock.now_us() + 22 * HOUR_US
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
