"""The fixed parts of the SDK's generated modules."""

POOL = '''"""The contract's messages in a descriptor pool of the SDK's own. Generated; never edited.

The default pool is left alone: a server in the same process has its own copies there.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    Path(__file__).with_name("image.binpb").read_bytes()
).file:
    POOL.AddSerializedFile(_file.SerializeToString())


@lru_cache(maxsize=None)
def pb(full_name: str) -> type[Any]:
    """The upb class of a message, e.g. `kfm.turn.v1.SubmitTurnRequest`; KeyError if there is none."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))
'''

TYPES = '''"""What the SDK shows: frozen values, read from strictly parsed protobuf messages. Generated; never edited.

Enums are IntEnums; a number that this release does not know stays an int. Times are in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as _field
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from typing import Any

from google.protobuf.message import DecodeError

from xenocomm._gen.errors import EventUndecodable, InvalidArgument
from xenocomm._gen.pool import pb

SCHEMA_RELEASE = "{release}"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _dt(m: Any) -> datetime:
    return _EPOCH + timedelta(seconds=m.seconds, microseconds=m.nanos // 1000)


def _pb_dt(value: datetime) -> Any:
    since = value - _EPOCH
    return pb("google.protobuf.Timestamp")(
        seconds=since.days * 86400 + since.seconds, nanos=since.microseconds * 1000
    )


def _td(m: Any) -> timedelta:
    return timedelta(seconds=m.seconds, microseconds=int(m.nanos / 1000))


def _pb_td(value: timedelta) -> Any:
    micros = (value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds
    sign = -1 if micros < 0 else 1
    seconds, rest = divmod(abs(micros), 1_000_000)
    return pb("google.protobuf.Duration")(seconds=sign * seconds, nanos=sign * rest * 1000)


@dataclass(frozen=True, slots=True)
class Payload:
    """What an envelope carries: its URL, its bytes, and the event, or None if the type is not known."""

    type_url: str = ""
    value: bytes = b""
    message: Event | None = None

    @classmethod
    def _from_pb(cls, m: Any) -> Payload:
        kind = _BY_URL.get(m.type_url)
        if kind is None:
            return cls(m.type_url, m.value)
        try:
            parsed = pb(m.type_url.rpartition("/")[2]).FromString(m.value)
        except DecodeError:
            raise EventUndecodable(metadata={{"url": m.type_url}}) from None
        return cls(m.type_url, m.value, kind.from_pb(parsed))

    def _to_pb(self) -> Any:
        return pb("google.protobuf.Any")(type_url=self.type_url, value=self.value)


'''

TYPES_TAIL = '''


Event = {union}
"""Every event of this release."""

EVENTS: dict[str, type[Event]] = {{
{events}
}}
"""Events by the envelope's type."""

_BY_URL: dict[str, type[Event]] = {{
{urls}
}}

CLASSES: dict[str, type[Any]] = {{
{classes}
}}
"""Every type of this module by its message's full name."""
'''

METHODS = '''"""Every RPC as the client needs it. Generated; never edited."""

from typing import NamedTuple


class Method(NamedTuple):
    """One RPC: `request` and `response` are full message names; an idempotent one may be sent again under its key."""

    path: str
    request: str
    response: str
    server_streaming: bool
    idempotent: bool
    read_only: bool


METHODS: dict[str, Method] = {{
{rows}
}}
'''
