"""An autoscaler of one pool of workers that sees nothing but /metrics: it starts them, and lets them go by draining them."""

import signal
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field

from bench.processes import Child


@dataclass(frozen=True, slots=True)
class Signal:
    """The pool's series on /metrics, each with its label: how much waits, and for how many seconds the oldest has."""

    waiting: str
    oldest: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What they stood at; 0 of a series that is not there yet."""

    waiting: float
    oldest: float


@dataclass(frozen=True, slots=True)
class Rule:
    """When workers are started and let go, in seconds, and looks in a row."""

    late: float = 2.0
    """The oldest has waited for longer: one worker more."""
    well: float = 1.2
    """Not longer than this at so many looks: recovered. Over a broker a step counts until it is committed."""
    looks: int = 3
    pause: float = 2.0
    """From one start to the next: so long does a new worker take to take its part."""
    most: int = 4


@dataclass(slots=True)
class Autoscaler:
    """One look after the other. It knows nothing of turns."""

    http: str
    signal: Signal
    rule: Rule
    start: Callable[[int], Child]
    """Starts a worker; it is told how many were started before."""
    workers: list[Child] = field(default_factory=list[Child])
    leaving: list[Child] = field(default_factory=list[Child])
    most: int = 0
    late_since: float = 0.0
    """When the oldest had first waited too long, by time.monotonic(); 0: never."""
    calm_since: float = 0.0
    """When the looks began at which all was well; 0: it is not."""
    _calm: int = 0
    _empty: int = 0
    _not_before: float = 0.0
    _started: int = 0

    @property
    def recovered(self) -> bool:
        """It was late once, and is well now."""
        return bool(self.late_since) and self._calm >= self.rule.looks

    def more(self) -> None:
        """One worker more."""
        self.workers.append(self.start(self._started))
        self._started += 1
        self.most = max(self.most, len(self.workers))

    def look(self) -> Seen:
        """Read /metrics and act."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        values = {name: value for name, _, value in (line.rpartition(" ") for line in lines)}
        seen = Seen(float(values.get(self.signal.waiting, 0)), float(values.get(self.signal.oldest, 0)))
        self._count(seen, now := time.monotonic())
        if seen.oldest > self.rule.late and len(self.workers) < self.rule.most and now >= self._not_before:
            self.more()
            self._not_before = now + self.rule.pause
        elif self.recovered and self._empty >= self.rule.looks and len(self.workers) > 1:
            gone = self.workers.pop()
            gone.process.send_signal(signal.SIGTERM)
            self.leaving.append(gone)
        self.leaving = [child for child in self.leaving if child.process.poll() is None]
        return seen

    def _count(self, seen: Seen, now: float) -> None:
        well = seen.oldest <= self.rule.well
        self._calm = self._calm + 1 if well else 0
        self.calm_since = (self.calm_since or now) if well else 0.0
        self._empty = 0 if seen.waiting else self._empty + 1
        if seen.oldest > self.rule.late:
            self.late_since = self.late_since or now

    def close(self) -> None:
        """Stop all workers."""
        for child in (*self.workers, *self.leaving):
            child.close()
