"""The cursor of a subscription: how far each partition was read, as text that is opaque to clients. Pure."""

import base64
import zlib
from collections.abc import Iterator, Mapping

from kfm.catalogue.errors import PageTokenInvalid

MAX_CURSOR = 4096
"""Longest cursor, in characters. Offsets of 1,024 partitions fit as long as each has fewer than 2**21 events more
than the one with the fewest."""
_VERSION = 1


def encode_cursor(partitions: int, offsets: Mapping[int, int]) -> str:
    """`offsets` by partition, of neighbouring ones; `partitions` is how many the database has."""
    first, base = min(offsets), min(offsets.values())
    numbers = [_VERSION, partitions, first, len(offsets), base]
    numbers += [offsets[p] - base for p in range(first, first + len(offsets))]
    body = b"".join(map(_varint, numbers))
    return base64.b85encode(body + zlib.crc32(body).to_bytes(4, "big")).decode()


def decode_cursor(text: str, partitions: int) -> dict[int, int]:
    """The reverse. Raises PageTokenInvalid for a text that is none, or one of another number of partitions."""
    try:
        raw = base64.b85decode(text)
    except ValueError:
        raise PageTokenInvalid("The cursor is not one that this server made.") from None
    body, check = raw[:-4], raw[-4:]
    if zlib.crc32(body).to_bytes(4, "big") != check:
        raise PageTokenInvalid("The cursor is not one that this server made.")
    version, *rest = _numbers(body)
    if version != _VERSION or len(rest) < 5 or rest[0] != partitions:
        raise PageTokenInvalid("The cursor was made by another release, or for another database.")
    _, first, count, base, *deltas = rest
    if count != len(deltas) or first + count > partitions:
        raise PageTokenInvalid("The cursor is not one that this server made.")
    return {first + n: base + delta for n, delta in enumerate(deltas)}


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _numbers(body: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in body:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
