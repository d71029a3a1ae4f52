"""Output as it forms, with what a reader must take back and what it missed."""

from collections.abc import AsyncGenerator, Collection, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal

from xenocomm._gen.types import StepDelta, StepEvent, TurnUpdate

Kind = Literal["text", "reasoning", "tool_arguments", "progress"]
KINDS: tuple[Kind, ...] = ("text", "reasoning", "tool_arguments", "progress")


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of what an attempt of a step puts out."""

    step_key: str
    attempt: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Discard:
    """A new attempt of the step begins: forget the pieces of the one before."""

    step_key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Missed:
    """Pieces of the attempt were dropped, because the reader was slow or came late; the step's result has the whole."""

    step_key: str
    attempt: int


Delta = Piece | Discard | Missed


async def pieces(
    updates: AsyncGenerator[TurnUpdate, None], kinds: Collection[Kind] = KINDS
) -> AsyncGenerator[Delta, None]:
    """The deltas of some kinds among a turn's updates; those of a superseded attempt are left out."""
    reading = _Reading(kinds)
    async with aclosing(updates):
        async for update in updates:
            for delta in reading.of(update):
                yield delta


class _Reading:
    """What has been shown of each step."""

    def __init__(self, kinds: Collection[Kind]) -> None:
        self._kinds = kinds
        self._attempts: dict[str, int] = {}
        self._next: dict[str, int | None] = {}

    def of(self, update: TurnUpdate) -> Iterator[Delta]:
        """What one update says."""
        if update.delta is not None:
            yield from self._delta(update.delta)
        elif update.gap is not None and (yield from self._attempt(update.gap.step_key, update.gap.attempt)):
            self._next[update.gap.step_key] = None
            yield Missed(update.gap.step_key, update.gap.attempt)
        elif update.event is not None and isinstance(step := update.event.event, StepEvent):
            yield from self._attempt(step.step_key, update.event.attempt)

    def _delta(self, delta: StepDelta) -> Iterator[Delta]:
        key = delta.step_key
        if not (yield from self._attempt(key, delta.attempt)):
            return
        due = self._next.get(key, 0)
        if due is not None and delta.index < due:
            return
        self._next[key] = delta.index + 1
        if due is not None and delta.index > due:
            yield Missed(key, delta.attempt)
        for kind in self._kinds:
            text: str | None = getattr(delta, kind)
            if text:
                yield Piece(key, delta.attempt, kind, text)

    def _attempt(self, key: str, attempt: int) -> Generator[Delta, None, bool]:
        """Whether the attempt stands; a new one voids what was shown of those before."""
        latest = self._attempts.get(key, 0)
        if attempt > latest:
            self._attempts[key] = attempt
            if self._next.pop(key, 0) != 0:
                yield Discard(key, attempt)
        return attempt >= latest
