"""Follows one turn: what is in its journal, then what the broadcaster tells, merged by sequence: no hole, no repeat."""

from collections.abc import AsyncGenerator

from kfm.catalogue.errors import Unavailable
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api

from kfm_server.ports.journal import Journal, JournalUnavailable
from kfm_server.runtime.broadcaster import Watcher
from kfm_server.runtime.history import read_envelope

PAGE = 200
"""Events read from the journal at a time."""


async def read_events(journal: Journal, turn_id: str, after: int, limit: int) -> list[envelope_pb2.Envelope]:
    """Durable events after a sequence. Raises Unavailable, and BrokenHistory for one that cannot be read."""
    try:
        stored = await journal.read_turn(turn_id, after, limit)
    except JournalUnavailable:
        raise Unavailable(retry_after_ms=1000) from None
    return [read_envelope(s) for s in stored]


async def follow(
    journal: Journal, turn_id: str, watcher: Watcher, after: int
) -> AsyncGenerator[list[api.TurnUpdate]]:
    """The turn's updates after a sequence, to its end or until the watcher is closed. Who takes a list may empty it."""
    last = after
    held: list[api.TurnUpdate] = []
    while True:
        if watcher.lost or watcher.stale:
            watcher.lost = watcher.stale = False
            more = True
            while more and (events := await read_events(journal, turn_id, last, PAGE)):
                more, last = len(events) == PAGE, events[-1].sequence
                yield [api.TurnUpdate(event=event) for event in events]
                if is_end(events[-1]):
                    return
        fresh: list[api.TurnUpdate] = []
        waiting, held = held + watcher.take(), []
        for n, update in enumerate(waiting):
            if update.HasField("event"):
                if update.event.sequence <= last:
                    continue
                if update.event.sequence != last + 1:
                    watcher.stale, held = (
                        True,
                        waiting[n:],
                    )  # what lies between is in the journal, and comes first
                    break
                last = update.event.sequence
            fresh.append(update)
        if fresh:
            end = any(is_end(u.event) for u in fresh if u.HasField("event"))
            yield fresh
            if end:
                return
        if watcher.closed and not watcher.updates and not held:
            yield [api.TurnUpdate(reconnect=api.Reconnect(reason=watcher.closed, after_sequence=last))]
            return
        await watcher.ready()


def changes_state(event: envelope_pb2.Envelope) -> bool:
    """The event tells that its turn started, waits, or ended."""
    return event.type == "TurnStateEvent.v1"


def is_end(event: envelope_pb2.Envelope) -> bool:
    """The event is the last one of its turn."""
    if not changes_state(event):
        return False
    return ev.TurnStateEvent.FromString(event.payload.value).change == ev.TURN_CHANGE_FINISHED
