"""What a copy of an event looks like on a broker: the journal's bytes as they are, and headers that spare opening them."""

from google.protobuf.message import DecodeError
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import StepEvent

from kfm_server.ports.broker import OFFSET, POOL, STEPS, Message, Received, message_id
from kfm_server.ports.journal import Stored

EPOCH = "kfm-epoch"
TYPE = "kfm-type"
SESSION = "kfm-session"
_MAX_VALUE = 255


def copy_of(stored: Stored) -> Message:
    """The copy of a journal's event. Bytes that are no envelope are copied too, with fewer headers."""
    headers = {OFFSET: str(stored.offset), EPOCH: str(stored.epoch)}
    event_id = f"{stored.partition}/{stored.offset}"
    try:
        envelope = Envelope.FromString(stored.envelope)
        event_id = envelope.event_id or event_id
        headers |= {TYPE: envelope.type, SESSION: envelope.session_id}
        if stored.topic == STEPS:
            headers[POOL] = StepEvent.FromString(envelope.payload.value).pool
    except DecodeError:
        pass
    fit = {name: value for name, value in headers.items() if 0 < len(value.encode()) <= _MAX_VALUE}
    return Message(stored.envelope, message_id(event_id), fit)


def copied_from(received: Received) -> int:
    """The offset in the journal of what a message is a copy of; 0 if it is none."""
    text = received.headers.get(OFFSET, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0


def said_session(received: Received) -> str:
    """The session that a message's header names; empty if none."""
    return received.headers.get(SESSION, "")
