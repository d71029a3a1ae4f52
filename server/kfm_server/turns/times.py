"""Times as events keep them, and as the engine reckons: whole microseconds."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

US = 1_000_000
"""Microseconds in a second."""


def micros(value: Timestamp | Duration) -> int:
    """Microseconds since the epoch, or of a span."""
    return value.seconds * US + value.nanos // 1000


def timestamp(us: int) -> Timestamp:
    """Microseconds since the epoch as a Timestamp."""
    return Timestamp(seconds=us // US, nanos=us % US * 1000)


def duration(us: int) -> Duration:
    """Microseconds as a Duration."""
    return Duration(seconds=us // US, nanos=us % US * 1000)
