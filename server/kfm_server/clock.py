"""Time, as the engine sees it: whole microseconds since 1970 in UTC, and a monotonic clock for leases."""

import asyncio
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


class Timer(Protocol):
    """A callback to come."""

    def cancel(self) -> None:
        """It is not called any more."""
        ...


CallLater = Callable[[float, Callable[[], None]], Timer]
"""Calls back, in the running loop, after seconds of the engine's clock."""


def on_the_loop(delay: float, callback: Callable[[], None]) -> Timer:
    """By the running loop's own timers: what a clock needs that nobody moves."""
    return asyncio.get_running_loop().call_later(delay, callback)


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


class VirtualClock(SharedClock):
    """A clock that runs on as others do, and that a test moves on besides. For one loop, `call_later` and `advance` alike."""

    def __init__(self, local: Clock | None = None) -> None:
        """`local` as for SharedClock."""
        super().__init__(local)
        self._moved_us = 0
        self._timers: set[_VirtualTimer] = set()

    def now_us(self) -> int:
        """Wall time in microseconds since the epoch, UTC, and all that it was moved on."""
        return super().now_us() + self._moved_us

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """As CallLater; what the clock is moved on by counts."""
        timer = _VirtualTimer(self._timers, self.now_us() + int(delay * 1_000_000), callback)
        timer.set(delay)
        return timer

    def next_us(self) -> int | None:
        """When the next timer is due; None when none is set."""
        return min((timer.due_us for timer in self._timers), default=None)

    def advance(self, seconds: float) -> None:
        """Move on, at once, by seconds from 0; timers that are due by then are called in the loop's next round."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._moved_us += int(seconds * 1_000_000)
        for timer in sorted(self._timers, key=lambda timer: timer.due_us):
            timer.set((timer.due_us - self.now_us()) / 1_000_000)


class _VirtualTimer:
    def __init__(self, among: "set[_VirtualTimer]", due_us: int, callback: Callable[[], None]) -> None:
        self.due_us = due_us
        self._among = among
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None

    def set(self, delay: float) -> None:
        self.cancel()
        self._among.add(self)
        self._handle = asyncio.get_running_loop().call_later(max(0.0, delay), self._call)

    def cancel(self) -> None:
        self._among.discard(self)
        if self._handle is not None:
            self._handle.cancel()

    def _call(self) -> None:
        self._among.discard(self)
        self._callback()
