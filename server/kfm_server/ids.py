"""Ids: a prefix that says what it names, and a body that sorts by time."""

import zlib
from collections.abc import Callable

import uuid_utils

IdMaker = Callable[[str], str]


def new_id(prefix: str) -> str:
    """A fresh id such as `turn_0198c2…`: the prefix and 32 hex digits of a UUIDv7."""
    return f"{prefix}_{uuid_utils.uuid7().hex}"


def partition_of(session_id: str, partitions: int) -> int:
    """The partition that holds a session: crc32 of its id, modulo their number (ENGINE section 1)."""
    return zlib.crc32(session_id.encode()) % partitions
