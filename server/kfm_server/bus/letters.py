"""Makes dead letters: the original bytes with where they stood and what was wrong."""

import hashlib

from google.protobuf.timestamp_pb2 import Timestamp
from kfm.catalogue.errors import EventUndecodable, KfmError
from kfm.catalogue.events import fill
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.system_events_pb2 import DeadLetterEvent
from kfm.type.v1.type_pb2 import Error

from kfm_server.ports.bus import Carried, Letter
from kfm_server.ports.journal import Stored

UNOWNED = "default"
"""The tenant that sees messages which do not tell whose they are: the operator's own."""
_MAX_TEXT = 500


def letter_id(group: str, partition: int, offset: int) -> str:
    """The id of a message's letter: the same however often the message is buried."""
    return f"evt_{hashlib.sha256(f'{group}/{partition}/{offset}'.encode()).hexdigest()[:32]}"


def plain(text: str) -> str:
    """Text that any store can keep: Postgres refuses NUL."""
    return text.replace("\0", "\ufffd")


def describe(error: BaseException) -> Error:
    """What is wrong, for the operator: the reason if it is ours, else the class and its first words."""
    name = type(error).__name__
    if isinstance(error, KfmError):
        return Error(
            reason=error.reason,
            message=plain(error.message),
            retryable=error.retryable,
            metadata={k: plain(v) for k, v in error.metadata.items()} | {"class": name},
        )
    text = plain(str(error)).encode(errors="replace").decode()[:_MAX_TEXT]
    return Error(
        reason="REASON_INTERNAL",
        message=f"The consumer failed: {name}: {text}" if text else f"The consumer failed: {name}",
        metadata={"class": name},
    )


def undecodable(stored: Stored) -> EventUndecodable:
    """The error for bytes that are no envelope."""
    return EventUndecodable(
        metadata={"event_id": f"{stored.turn_id}.{stored.sequence}" if stored.turn_id else ""}
    )


def make_letter(
    group: str,
    stored: Stored,
    *,
    tenant_id: str,
    session_id: str,
    key: str,
    error: Error,
    deliveries: int,
    now_us: int,
) -> Letter:
    """The letter of a message. `deliveries` counts how often the handler saw it."""
    id = letter_id(group, stored.partition, stored.offset)
    if isinstance(stored, Carried):  # a broker that lost messages gives their offsets to others
        digest = hashlib.sha256(stored.envelope).hexdigest()
        id = letter_id(f"{group}/{stored.topic}/{digest}", stored.partition, stored.offset)
    tenant = plain(tenant_id) or UNOWNED
    envelope = Envelope(
        event_id=id,
        timestamp=Timestamp(seconds=now_us // 1_000_000, nanos=now_us % 1_000_000 * 1000),
        tenant_id=tenant,
        session_id=session_id,
        causation_id=f"{stored.turn_id}.{stored.sequence}" if stored.turn_id else "",
    )
    fill(
        envelope,
        DeadLetterEvent(
            group=group,
            source_topic=stored.topic,
            source_partition=stored.partition,
            source_offset=stored.offset,
            original=stored.envelope,
            error=error,
            deliveries=deliveries,
        ),
    )
    return Letter(
        id=id,
        group=group,
        partition=stored.partition,
        offset=stored.offset,
        topic=stored.topic,
        tenant_id=tenant,
        session_id=session_id,
        key=key,
        created_us=now_us,
        reason=error.reason,
        envelope=envelope.SerializeToString(deterministic=True),
    )
