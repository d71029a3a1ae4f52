"""Commands of the binary protocol 0.11 that the wheel has no method for: pure encoders and decoders, little-endian."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass

GET_CLIENT, GET_CLIENTS = 21, 22
GET_OFFSET, STORE_OFFSET = 120, 121
CREATE_TOPIC = 302
SYNC_GROUP = 606

_CONSUMER_GROUP = 2
_TEXT = 2


class Malformed(ValueError):
    """An answer that is not what the protocol says: another version of the server."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A group's place in a partition, in Iggy's offsets: the last message of the partition, and the last committed."""

    current: int
    stored: int


def identifier(name: str) -> bytes:
    """Of a stream, topic or group by its name. Raises ValueError beyond 1 to 255 bytes."""
    raw = name.encode()
    if not 0 < len(raw) <= 255:
        raise ValueError(f"{name[:60]!r} is no name: 1 to 255 bytes")
    return bytes((2, len(raw))) + raw


def get_offset(group: str, stream: str, topic: str, partition: int) -> bytes:
    """Of GET_OFFSET, for a group; whoever may poll the topic may ask."""
    names = identifier(group) + identifier(stream) + identifier(topic)
    return bytes((_CONSUMER_GROUP,)) + names + struct.pack("<BI", 1, partition)


def store_offset(group: str, stream: str, topic: str, partition: int, offset: int) -> bytes:
    """Of STORE_OFFSET, for a group of which the sender owns the partition; acknowledged once it is kept."""
    return get_offset(group, stream, topic, partition) + struct.pack("<QB", offset, 1)


def stored(reply: bytes) -> Stored | None:
    """Of GET_OFFSET. None: nothing was committed."""
    if not reply:
        return None
    if len(reply) != 20:
        raise Malformed(f"an offset of {len(reply)} bytes")
    return Stored(*struct.unpack_from("<QQ", reply, 4))


def sync_group(stream: str, topic: str, group: str) -> bytes:
    """Of SYNC_GROUP."""
    return identifier(stream) + identifier(topic) + identifier(group)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A member's partitions; as long as the generation is the same, none came or went."""

    generation: int
    partitions: tuple[int, ...]


def assignment(reply: bytes) -> Assignment | None:
    """Of SYNC_GROUP, for the sender. None: it is no member."""
    if not reply:
        return None
    count = int.from_bytes(reply[8:12], "little")
    if len(reply) != 12 + 4 * count:
        raise Malformed(f"an assignment of {len(reply)} bytes")
    return Assignment(int.from_bytes(reply[:8], "little"), struct.unpack_from(f"<{count}I", reply, 12))


def create_topic(stream: str, name: str, partitions: int, options: Mapping[str, str]) -> bytes:
    """Of CREATE_TOPIC, for servers whose options the wheel does not know."""
    parts = [identifier(stream), struct.pack("<I", partitions), identifier(name)[1:]]
    for text in (t for option in options.items() for t in option):
        raw = text.encode()
        if not 0 < len(raw) <= 255:
            raise ValueError(f"the option {text[:60]!r} is not of 1 to 255 bytes")
        parts.append(struct.pack("<BI", _TEXT, len(raw)) + raw)
    return b"".join(parts)


def clients(reply: bytes) -> list[tuple[int, int]]:
    """Of GET_CLIENTS: each connected client's id, and of how many groups it is a member."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(reply):
        number, groups, at = _client(reply, at)
        found.append((number, groups))
    return found


def groups_of(reply: bytes) -> list[tuple[int, int, int]]:
    """Of GET_CLIENT: ids of stream, topic and group of each membership. Empty of one that is gone."""
    if not reply:
        return []
    _, count, at = _client(reply, 0)
    if len(reply) != at + 12 * count:
        raise Malformed(f"a client of {len(reply)} bytes")
    return [struct.unpack_from("<III", reply, at + 12 * i) for i in range(count)]


def _client(reply: bytes, at: int) -> tuple[int, int, int]:
    try:
        number, _, _, size = struct.unpack_from("<IIBI", reply, at)
        return number, struct.unpack_from("<I", reply, at + 13 + size)[0], at + 17 + size
    except struct.error:
        raise Malformed(f"clients of {len(reply)} bytes") from None
