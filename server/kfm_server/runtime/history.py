"""Between the journal's rows and state: decodes, fetches bodies that stand apart, folds; and puts large bodies away."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from kfm.catalogue.errors import EventUndecodable, HistoryUnreadable, KfmError
from kfm.catalogue.events import unpack
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev

from kfm_server.ports.journal import Journal, JournalUnavailable, Stored
from kfm_server.turns.bodies import is_large
from kfm_server.turns.fold import HistoryError, begin, fold_session, fold_turn
from kfm_server.turns.state import Session, Turn

Envelope = envelope_pb2.Envelope
HEAD_CHARACTERS = 1024
"""As much of an output that stands in the blob store is in its event."""


class BrokenHistory(HistoryUnreadable):
    """A stored event that cannot be decoded, or does not fit those before it. `cause` says what is wrong with it."""

    def __init__(self, stored: Stored, cause: Exception) -> None:
        super().__init__(
            f"event {stored.sequence} of turn {stored.turn_id} cannot be read: {_text(cause)}",
            metadata={"turn_id": stored.turn_id, "sequence": str(stored.sequence)},
        )
        self.stored = stored
        self.cause = cause


def read_envelope(stored: Stored) -> Envelope:
    """The envelope of an event; its payload is not looked at. Raises BrokenHistory."""
    try:
        return Envelope.FromString(stored.envelope)
    except DecodeError:
        raise BrokenHistory(stored, EventUndecodable()) from None


def decode_event(stored: bytes) -> tuple[Envelope, Any]:
    """An envelope and its payload. Raises EventUndecodable or EventTypeUnknown."""
    try:
        envelope = Envelope.FromString(stored)
    except DecodeError:
        raise EventUndecodable from None
    return envelope, unpack(envelope)


async def fold_stored_session(journal: Journal, session_id: str, events: Iterable[Stored]) -> Session:
    """A session from the events of its unfinished turns, in the order of their offsets. Raises BrokenHistory."""
    session = Session(session_id)
    for stored in events:
        try:
            envelope, payload = await _whole(journal, stored)
            session = fold_session(session, envelope, payload)
        except JournalUnavailable:
            raise
        except Exception as error:  # fold is pure: whatever it raises is the event's fault
            raise BrokenHistory(stored, error) from error
    return session


async def fold_stored_turn(journal: Journal | None, events: Iterable[Stored], only: str = "") -> Turn | None:
    """One turn from all its events; None if there are none. Without a journal large outputs are left out.

    With `only`, a step's key, so are those of other steps.

    Raises BrokenHistory.
    """
    turn: Turn | None = None
    for stored in events:
        try:
            envelope, payload = await _whole(journal, stored, only)
            turn = begin(envelope, payload) if turn is None else fold_turn(turn, envelope, payload)
        except JournalUnavailable:
            raise
        except Exception as error:
            raise BrokenHistory(stored, error) from error
    return turn


async def _whole(journal: Journal | None, stored: Stored, only: str = "") -> tuple[Envelope, Any]:
    envelope, payload = decode_event(stored.envelope)
    if journal is None or not isinstance(payload, ev.StepResultEvent):
        return envelope, payload
    if payload.output_blob and only in ("", payload.step_key):
        payload.output_json = (await journal.get_blob(payload.output_blob)).decode()
    return envelope, payload


async def put_away(journal: Journal, events: Sequence[Envelope]) -> None:
    """Store the large outputs among the events as blobs, and leave their digests in their places."""
    bodies: dict[str, bytes] = {}
    for envelope in events:
        if envelope.type != "StepResultEvent.v1":
            continue
        payload = ev.StepResultEvent.FromString(envelope.payload.value)
        if is_large(payload.output_json):
            body = payload.output_json.encode()
            digest = hashlib.sha256(body).hexdigest()
            bodies[digest] = body
            payload.output_bytes, payload.output_head = len(body), payload.output_json[:HEAD_CHARACTERS]
            payload.output_blob, payload.output_json = digest, ""
            envelope.payload.value = payload.SerializeToString(deterministic=True)
    for digest in sorted(bodies):  # in one order everywhere: two writers of the same two must not deadlock
        await journal.put_blob(bodies[digest])


def _text(cause: Exception) -> str:
    if isinstance(cause, KfmError):
        return cause.message
    return str(cause) if isinstance(cause, HistoryError) else type(cause).__name__
