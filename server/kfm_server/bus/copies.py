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
_SHORT = _MAX_VALUE // 4
"""Characters that fit, whatever they are."""


def copy_of(stored: Stored) -> Message:
    """The copy of a journal's event. Bytes that are no envelope are copied too, with fewer headers."""
    headers = {OFFSET: str(stored.offset), EPOCH: str(stored.epoch)}
    event_id = ""
    try:
        envelope = Envelope.FromString(stored.envelope)
        event_id = envelope.event_id
        _say(headers, TYPE, envelope.type)
        _say(headers, SESSION, envelope.session_id)
        if stored.topic == STEPS:
            _say(headers, POOL, StepEvent.FromString(envelope.payload.value).pool)
    except DecodeError:
        pass
    return Message(stored.envelope, message_id(event_id or f"{stored.partition}/{stored.offset}"), headers)


def _say(headers: dict[str, str], name: str, value: str) -> None:
    """What no broker takes is not said: it stands in the envelope."""
    if 0 < len(value) <= _SHORT or 0 < len(value.encode()) <= _MAX_VALUE:
        headers[name] = value


def copied_from(received: Received) -> int:
    """The offset in the journal of what a message is a copy of; 0 if it is none."""
    text = received.headers.get(OFFSET, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else 0


def said_session(received: Received) -> str:
    """The session that a message's header names; empty if none."""
    return received.headers.get(SESSION, "")
