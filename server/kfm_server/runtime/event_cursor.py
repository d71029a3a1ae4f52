"""The cursor of a subscription: how far each partition was read, as text that is opaque to clients. Pure."""

import base64
import binascii
import struct
import zlib
from collections.abc import Mapping

from kfm.catalogue.errors import PageTokenInvalid

MAX_CURSOR = 4096
"""Longest cursor, in characters. Offsets of 1,024 partitions fit as long as each has at most 2**23 events more than the
one with the fewest."""
_VERSION = 1
_HEAD = struct.Struct(">BHHHQB")
"""Version; how many partitions there are; the first that is told, and how many; the lowest offset; the bits of each."""


def encode_cursor(partitions: int, offsets: Mapping[int, int]) -> str:
    """`offsets` by partition, of neighbouring ones; `partitions` is how many the database has."""
    first, base = min(offsets), min(offsets.values())
    width = (max(offsets.values()) - base).bit_length()
    packed = 0
    for partition in range(first, first + len(offsets)):
        packed = packed << width | offsets[partition] - base
    body = _HEAD.pack(_VERSION, partitions, first, len(offsets), base, width)
    body += packed.to_bytes(_bytes(len(offsets), width), "big")
    return base64.urlsafe_b64encode(body + zlib.crc32(body).to_bytes(4, "big")).decode().rstrip("=")


def decode_cursor(text: str, partitions: int) -> dict[int, int]:
    """The reverse. Raises PageTokenInvalid for a text that is none, or one of another number of partitions."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    body, check = raw[:-4], raw[-4:]
    if len(body) < _HEAD.size or zlib.crc32(body).to_bytes(4, "big") != check:
        raise PageTokenInvalid("The cursor is not one that this server made.")
    version, of, first, count, base, width = _HEAD.unpack_from(body)
    if version != _VERSION or of != partitions:
        raise PageTokenInvalid("The cursor was made by another release, or for another database.")
    if first + count > partitions or len(body) != _HEAD.size + _bytes(count, width):
        raise PageTokenInvalid("The cursor is not one that this server made.")
    packed = int.from_bytes(body[_HEAD.size :], "big")
    mask = (1 << width) - 1
    return {first + n: base + (packed >> (count - 1 - n) * width & mask) for n in range(count)}


def _bytes(count: int, width: int) -> int:
    return (count * width + 7) // 8
