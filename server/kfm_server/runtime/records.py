"""What the journal is handed of a decision: its events, and the rows of the turns that it moved."""

from collections.abc import Iterable

from kfm.catalogue.events import EVENT_TYPES
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.turn.v1 import turn_pb2 as api

from kfm_server.ports.journal import Record, TurnRow
from kfm_server.turns.state import Turn

_PHASES = {
    api.TURN_STATE_QUEUED: "queued",
    api.TURN_STATE_RUNNING: "running",
    api.TURN_STATE_WAITING: "waiting",
    api.TURN_STATE_FINISHED: "finished",
}


def records(events: Iterable[Envelope]) -> tuple[Record, ...]:
    """The events as they are appended."""
    return tuple(
        Record(e.turn_id, e.sequence, EVENT_TYPES[e.type].topic, e.SerializeToString()) for e in events
    )


def row_key(turn: Turn) -> tuple[str, int | None]:
    """Phase and wake time: the row of a turn is written when one of them changes, and at no other event."""
    wake = turn.waiting.until_us if turn.waiting and turn.phase == api.TURN_STATE_WAITING else None
    return _PHASES[turn.phase], wake


def turn_row(turn: Turn, partition: int) -> TurnRow:
    """The turn's row in the projection."""
    phase, wake = row_key(turn)
    return TurnRow(
        turn_id=turn.turn_id,
        session_id=turn.session_id,
        tenant_id=turn.tenant_id,
        partition=partition,
        phase=phase,
        wake_at_us=wake,
        submitted_us=turn.submitted_us,
    )


class TurnRows:
    """The rows of a session's turns that the journal has, so that each is written only when it changes."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._written: dict[str, tuple[str, int | None]] = {}

    def changed(self, turns: Iterable[Turn]) -> tuple[TurnRow, ...]:
        """Rows to write for these turns."""
        return tuple(
            turn_row(turn, self._partition)
            for turn in turns
            if self._written.get(turn.turn_id) != row_key(turn)
        )

    def written(self, turns: Iterable[Turn]) -> None:
        """The journal has them now."""
        for turn in turns:
            if turn.phase == api.TURN_STATE_FINISHED:
                self._written.pop(turn.turn_id, None)
            else:
                self._written[turn.turn_id] = row_key(turn)

    def clear(self) -> None:
        """Nothing is known."""
        self._written.clear()
