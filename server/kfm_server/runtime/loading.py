"""Loads the sessions of a partition; holds those that cannot be folded or taken up, until a person decides."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from kfm.catalogue.errors import HistoryUnreadable, Internal
from kfm.catalogue.events import EVENT_TYPES, fill
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types

from kfm_server.clock import Clock
from kfm_server.ports.bus import Hold, SessionHolds
from kfm_server.ports.journal import Entry, Journal, Record, Stored, TurnRow
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.history import BrokenHistory, fold_stored_session
from kfm_server.turns.state import Session
from kfm_server.turns.times import timestamp

MOST_FAILURES = 3
"""So often the engine may fail at a session, in this process and before the session rests, until it is held."""


_PAGE = 64
"""Sessions whose events are read at a time."""


class Stuck(Internal):
    """A session that can be folded, and at which the engine then fails. `stored`: the last event of the turn at fault."""

    def __init__(self, stored: Stored, cause: str) -> None:
        super().__init__(
            f"the engine failed again and again at turn {stored.turn_id}: {cause}",
            metadata={"turn_id": stored.turn_id},
        )
        self.stored = stored


class SessionLoader:
    """Folds sessions from the journal. Methods raise JournalUnavailable, and Fenced when the partition is another's.

    Of a hold that a person released, a replay folds again. A drop gives the turn up that the bad event is of: the
    turn ends FAILED behind what is in the journal, and the rest of its session goes on without it. To pass over the
    event alone would be to guess what a turn has done. A session at which the engine fails is held by the last event
    of the turn that it works at, and let go in the same two ways.
    """

    def __init__(
        self, journal: Journal, holds: SessionHolds | None, clock: Clock, broadcaster: Broadcaster
    ) -> None:
        self._journal = journal
        self._holds = holds
        self._clock = clock
        self._broadcaster = broadcaster
        self._held: dict[str, tuple[int, str]] = {}
        self._failures: dict[str, tuple[int, str]] = {}

    def check(self, session_id: str) -> None:
        """Raise HistoryUnreadable if the session is held; it names the dead letter."""
        if session_id in self._held:
            letter = self._held[session_id][1]
            raise HistoryUnreadable(
                f"the session is held: replay or drop the dead letter {letter}",
                metadata={"session_id": session_id, "dead_letter_id": letter},
            )

    def taken_up(self, session_id: str) -> None:
        """The session has its lane."""
        self._held.pop(session_id, None)

    def failed(self, session_id: str, error: Exception) -> None:
        """The engine failed at the session; after MOST_FAILURES the next load holds it."""
        times, _ = self._failures.get(session_id, (0, ""))
        self._failures[session_id] = times + 1, f"{type(error).__name__}: {error}"[:200]

    def rested(self, session_id: str) -> None:
        """The session has left memory; unless it is held, every turn of it has ended."""
        if session_id not in self._held:
            self._failures.pop(session_id, None)

    def forget(self, partition: int) -> None:
        """The partition is not ours any more."""
        self._held = {s: held for s, held in self._held.items() if held[0] != partition}

    async def decided(self) -> frozenset[int]:
        """Partitions in which a person has released a session that this process holds."""
        if self._holds is None or not self._held:
            return frozenset()
        return await self._holds.released() & {partition for partition, _ in self._held.values()}

    async def load(
        self, partition: int, epoch: int, *, released: bool = False, only: str = ""
    ) -> AsyncGenerator[Session]:
        """One by one, every session with a turn that has not finished; `released`: those whose hold was released; `only`: this one.

        The loop goes on between any two. Who asks for a session takes it up before it asks for the next: a hold is
        lifted just before. Requests for one that was held are refused until `taken_up` says that it has its lane.
        """
        if not released and not only:
            self.forget(partition)
        holds = {} if self._holds is None else await self._holds.held(partition)
        if only:
            holds = {session_id: hold for session_id, hold in holds.items() if session_id == only}
        by_session: dict[str, list[TurnRow]] = {session_id: [] for session_id in holds}
        for row in await self._journal.open_turns(partition):
            if row.session_id == only if only else not released or row.session_id in holds:
                by_session.setdefault(row.session_id, []).append(row)
        wanted: dict[str, list[TurnRow]] = {}
        for session_id, rows in by_session.items():
            hold = holds.get(session_id)
            if hold is None or hold.released:
                wanted[session_id] = rows
            elif self._holds is not None:
                self._held[session_id] = (partition, self._holds.letter_of(partition, hold))
        while wanted:
            page = [(session_id, wanted.pop(session_id)) for session_id in list(wanted)[:_PAGE]]
            by_turn: dict[str, list[Stored]] = {}
            for event in await self._journal.read_turns([row.turn_id for _, rows in page for row in rows]):
                by_turn.setdefault(event.turn_id, []).append(event)
            for session_id, rows in page:
                session = await self._fold(session_id, epoch, rows, by_turn, holds.get(session_id))
                if session is not None:
                    if self._holds is not None and session_id in holds:
                        await self._holds.lift(partition, session_id, epoch)
                    yield session
                await asyncio.sleep(0)

    async def _fold(
        self,
        session_id: str,
        epoch: int,
        rows: Sequence[TurnRow],
        by_turn: dict[str, list[Stored]],
        hold: Hold | None,
    ) -> Session | None:
        left = {row.turn_id: row for row in rows}
        while True:
            events = [event for turn_id in left for event in by_turn.get(turn_id, ())]
            events.sort(key=lambda event: event.offset)
            try:
                session = await fold_stored_session(self._journal, session_id, events)
                self._check_stuck(session, events, hold)
                return session
            except (BrokenHistory, Stuck) as bad:
                if self._holds is None:
                    raise
                row = left.pop(bad.stored.turn_id)
                if hold is None or bad.stored.offset >= hold.offset:  # a drop moved the hold behind the event
                    letter = await self._holds.hold(bad.stored, row, bad, epoch)
                    self._held[session_id] = (bad.stored.partition, letter)
                    return None
                await self._give_up(row, epoch, by_turn[row.turn_id][-1].sequence + 1, bad)

    def _check_stuck(self, session: Session, events: Sequence[Stored], hold: Hold | None) -> None:
        """Raise Stuck for a session to be held, and for the turn that an operator dropped."""
        turn = session.active or next(iter(session.queue), None)
        if turn is None or self._holds is None:
            return
        last = next(event for event in reversed(events) if event.turn_id == turn.turn_id)
        times, cause = self._failures.get(session.session_id, (0, "see the dead letter"))
        if hold is None and times >= MOST_FAILURES:
            self._failures[session.session_id] = MOST_FAILURES - 1, cause  # a replay is one more try
            raise Stuck(last, cause)
        # Nothing is recorded while a session is held, so a drop moved the hold right behind this very event.
        if hold is not None and hold.reason == Stuck.row.reason and hold.offset == last.offset + 1:
            raise Stuck(last, cause)

    async def _give_up(self, row: TurnRow, epoch: int, sequence: int, bad: BrokenHistory | Stuck) -> None:
        now_us = self._clock.now_us()
        envelope = envelope_pb2.Envelope(
            event_id=f"{row.turn_id}.{sequence}",
            timestamp=timestamp(now_us),
            tenant_id=row.tenant_id,
            session_id=row.session_id,
            turn_id=row.turn_id,
            sequence=sequence,
        )
        why = f"an operator gave the turn up: {bad.message}; what its steps did is not undone"
        ended = ev.TurnStateEvent(
            change=ev.TURN_CHANGE_FINISHED,
            outcome=ev.OUTCOME_FAILED,
            error=types.Error(reason=bad.reason, message=why),
        )
        fill(envelope, ended)
        record = Record(row.turn_id, sequence, EVENT_TYPES[envelope.type].topic, envelope.SerializeToString())
        finished = TurnRow(
            row.turn_id, row.session_id, row.tenant_id, row.partition, "finished", None, row.submitted_us
        )
        await self._journal.append(Entry(row.partition, epoch, (record,), (finished,)))
        self._broadcaster.publish([envelope], epoch)
