"""A circuit breaker: an endpoint that fails again and again is left alone for a while, and then tried by one call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

FAILURES: Final = 5
"""Failures in a row that open it."""
OPEN_SECONDS: Final = 10.0
"""How long it stays open at first; twice as long after each probe that fails."""
MOST_OPEN_SECONDS: Final = 160.0
"""Longest that it stays open, unless it is longer at first."""

State = Literal["closed", "half_open", "open"]
Outcome = Literal["answered", "failed", "left"]
"""Of a call: `left` says nothing of the endpoint, as when whoever called went away."""


class BreakerOpen(Exception):
    """The call is not to be made; one may be tried after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"open for {seconds:g} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Permit:
    """That a call may be made; to be given back with its outcome, once."""

    round: int
    probe: bool = False


class Breaker:
    """The breaker of one endpoint. It waits for nothing and knows no other clock than `now`, in seconds."""

    def __init__(
        self, now: Callable[[], float], *, failures: int = FAILURES, open_seconds: float = OPEN_SECONDS
    ) -> None:
        """`failures`: how many in a row open it; `open_seconds`: for how long at first."""
        self._now = now
        self._most_failures = failures
        self._first_open_seconds = open_seconds
        self._failures = 0
        self._round = 0  # what began before it last opened or closed has no say any more
        self._open_until: float | None = None
        self._open_seconds = open_seconds
        self._probing = False

    @property
    def state(self) -> State:
        """`half_open` is the time of the probe, from when one may be made."""
        if self._open_until is None:
            return "closed"
        return "half_open" if self._probing or self._now() >= self._open_until else "open"

    @property
    def failures(self) -> int:
        """How many calls failed in a row."""
        return self._failures

    def enter(self) -> Permit:
        """May a call be made? Raises BreakerOpen."""
        if self._open_until is None:
            return Permit(self._round)
        left = self._open_until - self._now()
        if left > 0 or self._probing:
            raise BreakerOpen(max(left, 1.0))
        self._probing = True
        return Permit(self._round, probe=True)

    def leave(self, permit: Permit, outcome: Outcome) -> None:
        """Say what came of a call."""
        if permit.round != self._round:
            return
        if permit.probe:
            self._probing = False
        if outcome == "answered":
            self._failures, self._open_seconds = 0, self._first_open_seconds
            if permit.probe:
                self._round += 1
                self._open_until = None
        elif outcome == "failed":
            self._failures += 1
            if permit.probe:
                self._open_seconds = min(
                    2 * self._open_seconds, max(MOST_OPEN_SECONDS, self._first_open_seconds)
                )
            if permit.probe or self._failures >= self._most_failures:
                self._round += 1
                self._open_until = self._now() + self._open_seconds
