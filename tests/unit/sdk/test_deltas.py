"""Output as it forms."""

from collections.abc import AsyncGenerator

import pytest
from xenocomm import Discard, Missed, Piece
from xenocomm._gen.types import Envelope, Gap, Payload, StepDelta, StepEvent, TurnUpdate
from xenocomm.deltas import Delta, Kind, pieces

pytestmark = pytest.mark.requirement("E5")


def delta(attempt: int, index: int, **content: str) -> TurnUpdate:
    return TurnUpdate(delta=StepDelta(step_key="s", attempt=attempt, index=index, **content))


async def read(*updates: TurnUpdate, kinds: tuple[Kind, ...] = ("text",)) -> list[Delta]:
    async def told() -> AsyncGenerator[TurnUpdate, None]:
        for update in updates:
            yield update

    return [one async for one in pieces(told(), kinds)]


async def test_pieces_come_in_order_and_by_kind() -> None:
    updates = (delta(1, 0, reasoning="hm"), delta(1, 1, text="a"), delta(1, 2, tool_arguments="{}"))
    assert await read(*updates) == [Piece("s", 1, "text", "a")]
    assert await read(*updates, kinds=("reasoning", "tool_arguments")) == [
        Piece("s", 1, "reasoning", "hm"),
        Piece("s", 1, "tool_arguments", "{}"),
    ]


async def test_a_new_attempt_voids_what_was_shown_and_late_pieces_of_the_old_one_are_dropped() -> None:
    found = await read(delta(1, 0, text="a"), delta(2, 0, text="b"), delta(1, 1, text="late"))
    assert found == [Piece("s", 1, "text", "a"), Discard("s", 2), Piece("s", 2, "text", "b")]


async def test_the_dispatch_of_a_new_attempt_voids_at_once_and_the_first_voids_nothing() -> None:
    def dispatch(attempt: int) -> TurnUpdate:
        payload = Payload("type.googleapis.com/kfm.event.v1.StepEvent", b"", StepEvent(step_key="s"))
        return TurnUpdate(event=Envelope(type="StepEvent.v1", attempt=attempt, payload=payload))

    found = await read(dispatch(1), delta(1, 0, text="a"), dispatch(2), dispatch(3), delta(3, 0, text="b"))
    assert found == [Piece("s", 1, "text", "a"), Discard("s", 2), Piece("s", 3, "text", "b")]


async def test_what_was_dropped_is_told_once() -> None:
    gap = TurnUpdate(gap=Gap(step_key="s", attempt=1))
    found = await read(delta(1, 0, text="a"), gap, delta(1, 5, text="b"), delta(1, 7, text="c"))
    assert found == [
        Piece("s", 1, "text", "a"),
        Missed("s", 1),
        Piece("s", 1, "text", "b"),
        Missed("s", 1),
        Piece("s", 1, "text", "c"),
    ]


async def test_a_reader_who_comes_late_is_told_and_a_repetition_is_dropped() -> None:
    found = await read(delta(1, 3, text="d"), delta(1, 3, text="d"), delta(1, 4, text="e"))
    assert found == [Missed("s", 1), Piece("s", 1, "text", "d"), Piece("s", 1, "text", "e")]
