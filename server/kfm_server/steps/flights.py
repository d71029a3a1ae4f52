"""Equal calls under way are one call: by idempotency key, and for a while after its answer."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar

from kfm_server.ports.gateway import FlightsFull, KeyTaken

MAX_FLIGHTS: Final = 4_096
"""Most keys known at one time; answers that are only kept go first."""
MAX_KEPT_BYTES: Final = 32 * 1024 * 1024
"""Most that the kept answers take together."""
KEEP_SECONDS: Final = 60.0
"""How long an answer is kept for who asks again under its key."""

FlightEvent = Literal["start", "hit", "conflict", "complete", "fail"]
"""What a hook is told: the first call of a key began; another one met it, or was another request; it was answered, or was not."""
T = TypeVar("T")


@dataclass(slots=True)
class Flight(Generic[T]):
    """One call of a key; `answer` is set once, by who makes it."""

    digest: str
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    answer: T | None = None
    error: Exception | None = None
    size: int = 0
    until: float = 0.0


class Flights(Generic[T]):
    """Calls by key. A caller that leaves does not take the others with it: one of them calls anew."""

    def __init__(
        self,
        now: Callable[[], float],
        size_of: Callable[[T], int],
        hook: Callable[[FlightEvent, str], None] = lambda event, key: None,
        *,
        max_flights: int = MAX_FLIGHTS,
        max_kept_bytes: int = MAX_KEPT_BYTES,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """`now`: seconds; `size_of`: bytes of an answer; `hook`: told of each event with its key."""
        self._now, self._size_of, self._hook = now, size_of, hook
        self._most, self._most_bytes, self._keep = max_flights, max_kept_bytes, keep_seconds
        self._flights: dict[str, Flight[T]] = {}
        self._kept: dict[str, Flight[T]] = {}  # oldest first
        self._bytes = 0

    @asynccontextmanager
    async def flight(self, key: str, digest: str) -> AsyncGenerator[Flight[T]]:
        """The call of this key: has it an `answer`, then that is to be taken, else the body makes the call and sets it.

        Raises what the call that was met raised, KeyTaken, FlightsFull.
        """
        self._forget()
        while (flight := self._flights.get(key) or self._kept.get(key)) is not None:
            if flight.digest != digest:
                self._hook("conflict", key)
                raise KeyTaken
            await flight.ended.wait()
            if flight.error is not None:
                self._hook("hit", key)
                raise flight.error
            if flight.answer is not None:
                self._hook("hit", key)
                yield flight
                return
        if len(self._flights) >= self._most:
            raise FlightsFull
        flight = self._flights[key] = Flight[T](digest)
        self._hook("start", key)
        try:
            yield flight
        except Exception as error:
            flight.error = error
            raise
        finally:
            del self._flights[key]
            flight.ended.set()
            self._hook("complete" if flight.answer is not None else "fail", key)
            if flight.answer is not None:
                self._keep_answer(key, flight, flight.answer)

    def _keep_answer(self, key: str, flight: Flight[T], answer: T) -> None:
        flight.size, flight.until = self._size_of(answer), self._now() + self._keep
        self._kept[key] = flight
        self._bytes += flight.size
        self._forget()

    def _forget(self) -> None:
        """Whatever is over its time, or over a bound."""
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            over = self._bytes > self._most_bytes or len(self._kept) + len(self._flights) > self._most
            if oldest.until > self._now() and not over:
                return
            self._bytes -= self._kept.pop(key).size
