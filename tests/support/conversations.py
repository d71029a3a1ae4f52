"""Turns of sessions as the engine would have recorded them, written straight into a journal."""

from dataclasses import dataclass

from kfm.catalogue.events import fill
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.journal import Entry, Journal
from kfm_server.runtime.records import records
from kfm_server.turns.times import timestamp

from tests.support.journals import row


@dataclass
class Script:
    """Writes what happens in sessions of one partition, one event an entry. Time goes by one second an event."""

    journal: Journal
    session_id: str = "ses_a"
    tenant_id: str = "default"
    partition: int = 0
    now_us: int = 1_000_000

    def __post_init__(self) -> None:
        self._sequences: dict[str, int] = {}
        self._submitted: dict[str, int] = {}

    async def submit(
        self, turn_id: str, text: str = "", *, parent: str = "", labels: dict[str, str] | None = None
    ) -> None:
        """It is handed in, and waits."""
        self._submitted[turn_id] = self.now_us
        said = types.Part(text=text or f"question of {turn_id}")
        request = ev.TurnEvent(principal="ann", input=[said], parent_turn_id=parent, labels=labels or {})
        await self.write(turn_id, request, "queued")

    async def start(self, turn_id: str) -> None:
        """It begins."""
        await self.write(turn_id, ev.TurnStateEvent(change=ev.TURN_CHANGE_STARTED), "running")

    async def finish(
        self, turn_id: str, outcome: ev.Outcome = ev.OUTCOME_SUCCEEDED, *, dropped: bool = False
    ) -> None:
        """It ends; one that succeeds has an answer."""
        end = ev.TurnStateEvent(change=ev.TURN_CHANGE_FINISHED, outcome=outcome, dropped=dropped)
        if outcome == ev.OUTCOME_SUCCEEDED:
            end.output.add(text=f"answer of {turn_id}")
        else:
            end.error.reason = "REASON_STEP_FAILED"
        await self.write(turn_id, end, "finished")

    async def turn(self, turn_id: str, *, parent: str = "") -> None:
        """A whole turn that succeeds."""
        await self.submit(turn_id, parent=parent)
        await self.start(turn_id)
        await self.finish(turn_id)

    async def write(self, turn_id: str, payload: ev.TurnEvent | ev.TurnStateEvent, phase: str) -> None:
        """One event, and the turn's row."""
        self.now_us += 1_000_000
        sequence = self._sequences[turn_id] = self._sequences.get(turn_id, 0) + 1
        envelope = Envelope(
            event_id=f"{turn_id}.{sequence}",
            timestamp=timestamp(self.now_us),
            tenant_id=self.tenant_id,
            session_id=self.session_id,
            turn_id=turn_id,
            sequence=sequence,
        )
        fill(envelope, payload)
        at = self._submitted[turn_id] + 1_000_000
        projection = row(
            turn_id, phase, self.partition, session=self.session_id, at=at, tenant=self.tenant_id
        )
        await self.journal.append(Entry(self.partition, 1, records([envelope]), (projection,)))
