"""Time, as the engine sees it: whole microseconds since 1970 in UTC, and a monotonic clock for leases."""

import time
from collections.abc import Awaitable, Callable
from typing import Protocol

ROUGH_SECONDS = 0.5
"""A round trip that took longer says little about when the other clock was read."""
# Goes on while the machine is suspended, where there is such a clock: a lease does not last longer for it.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """What tells the time. The simulator has a virtual one."""

    def now_us(self) -> int:
        """Wall time in microseconds since the epoch, UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds of a clock that never goes back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        """Wall time in microseconds since the epoch, UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return time.clock_gettime(_STEADY)


class SharedClock:
    """The time of one clock that all processes ask, the database's: how far apart their own are matters to nothing.

    Until the first `measure` it is the machine's.
    """

    def __init__(self, local: Clock | None = None) -> None:
        """`local` is the machine's; SystemClock when not given."""
        self._local = local or SystemClock()
        self._ahead_us = self._local.now_us() - self._steady_us()
        self._measured = False

    def now_us(self) -> int:
        """Wall time in microseconds since the epoch, UTC, by the shared clock. A measure can set it back."""
        return self._steady_us() + self._ahead_us

    def monotonic(self) -> float:
        """Seconds of the machine's monotonic clock."""
        return self._local.monotonic()

    async def measure(self, ask: Callable[[], Awaitable[int]]) -> None:
        """Ask the shared clock for its microseconds, and go by it: it was read in the middle of the round trip.

        The first answer counts, and every later one that came within ROUGH_SECONDS. Raises what `ask` raises.
        """
        asked_us = self._steady_us()
        told_us = await ask()
        trip_us = self._steady_us() - asked_us
        if not self._measured or trip_us <= ROUGH_SECONDS * 1_000_000:
            self._measured = True
            self._ahead_us = told_us - asked_us - trip_us // 2

    def _steady_us(self) -> int:
        return int(self._local.monotonic() * 1_000_000)
