"""The frames of Iggy 0.9 over TCP: a header of 256 bytes and a body, little-endian; and the numbers that stand in them."""

import struct

HEADER = 256
REQUEST, REPLY, EVICTION = 5, 8, 13
REGISTER, NON_REPLICATED, LOGOUT = 1, 2, 3
OPERATIONS = {
    128: 202, 130: 204, 131: 205, 132: 302, 134: 303, 135: 305, 139: 602, 140: 603, 148: 604, 149: 605,
    160: 101, 161: 121, 162: 122,
}  # fmt: skip
"""Commands that are logged carry an operation instead of their code."""
RESULT_FRAMED = frozenset(OPERATIONS) - {160}
PROTOCOL = 11 << 10
"""0.11.0"""
INVALID_COMMAND, NOT_FOUND, UNAUTHENTICATED, CREDENTIALS = 3, 20, 40, 42
STREAM_EXISTS, TOPIC_EXISTS, OPTION, OPTION_VALUE = 1012, 2013, 4041, 4042
STREAM_MISSING, TOPIC_MISSING, GROUP_MISSING, GROUP_EXISTS, NOT_OWNED = 1009, 2010, 5000, 5004, 5009
DURABLE_OPTIONS = ("durability", "consumer_offset_durability")
OLD_OPTIONS = ("enforce_fsync",)
COMMON_OPTIONS = (
    "compression_algorithm", "message_expiry", "max_topic_size", "segment_size", "messages_required_to_save",
    "size_of_messages_required_to_save", "preallocate_segments",
)  # fmt: skip


class Refused(Exception):
    """Answered with an error's number."""

    def __init__(self, code: int) -> None:
        self.code = code


class Body:
    """Reads a request."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def name(self) -> str:
        return self.take(self.number("B")).decode()

    def identifier(self) -> str | int:
        kind, value = self.number("B"), self.take(self.number("B"))
        return int.from_bytes(value, "little") if kind == 1 else value.decode()

    def options(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while self.at < len(self.data):
            self.number("B")
            key = self.take(self.number("I")).decode()
            kind = self.number("B")
            value = self.take(self.number("I"))
            found[key] = value.decode() if kind == 2 else str(int.from_bytes(value, "little"))
        return found


def text(name: str) -> bytes:
    return bytes([len(name.encode())]) + name.encode()


def options_of(options: dict[str, str]) -> bytes:
    out = b""
    for key, value in options.items():
        for item in (key.encode(), value.encode()):
            out += b"\x02" + struct.pack("<I", len(item)) + item
    return struct.pack("<I", len(out)) + out
