"""The merge of the journal with what the broadcaster tells."""

import asyncio
from contextlib import aclosing

import pytest
from kfm.event.v1 import envelope_pb2
from kfm.turn.v1 import turn_pb2 as api
from kfm_server.journal.memory import MemoryJournal
from kfm_server.ports.journal import Entry, Record
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.following import follow


def event(sequence: int) -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(turn_id="turn_1", sequence=sequence)


def told(update: api.TurnUpdate) -> int | str:
    """An event by its sequence, a delta by its text."""
    return update.event.sequence if update.HasField("event") else update.delta.progress


@pytest.mark.requirement("E1", "FT12")
async def test_pieces_behind_an_event_that_was_missed_are_told_once_the_journal_has_given_what_lies_between() -> (
    None
):
    journal, broadcaster = MemoryJournal(), Broadcaster()
    watcher = broadcaster.attach("turn_1", 0)
    seen: list[int | str] = []

    def talk(text: str) -> None:
        broadcaster.delta("turn_1", api.StepDelta(step_key="s1", progress=text), 1)

    records = tuple(Record("turn_1", n, "topic", event(n).SerializeToString()) for n in range(1, 6))
    await journal.append(Entry(0, 0, records))
    broadcaster.publish([event(1)], 1)
    talk("a")
    broadcaster.publish([event(4)], 1)  # 2 and 3 were never told here
    talk("b")
    talk("c")
    broadcaster.publish([event(5)], 1)
    talk("d")
    watcher.close("enough")
    async with asyncio.timeout(10), aclosing(follow(journal, "turn_1", watcher, 0)) as updates:
        async for some in updates:
            seen += [told(update) for update in some if not update.HasField("reconnect")]
    assert seen == [1, "a", 2, 3, 4, 5, "b", "c", "d"]
