"""The seam of caches: bytes that are kept for a while, by namespace and key. What is kept may be gone at any time."""

from dataclasses import dataclass
from typing import Final, Protocol

MAX_VALUE: Final = 4 * 1024 * 1024
"""Largest value, in bytes."""
MAX_KEY: Final = 4096
"""Longest key, in characters."""


class CacheInvalid(ValueError):
    """What was asked cannot be: a name, or a number of seconds that is over a limit that the message names."""


class CacheUnavailable(Exception):
    """The cache cannot be reached now; the message says why. Whoever asks does without."""


@dataclass(frozen=True, slots=True)
class Cached:
    """A value. `fresh`: it may be used as it is; otherwise only where nothing newer is to be had."""

    value: bytes
    fresh: bool


class Cache(Protocol):
    """Every method may raise CacheUnavailable, and CacheInvalid."""

    async def get(self, namespace: str, key: str) -> Cached | None:
        """What is kept under this key, until its lifetime ends."""
        ...

    async def put(self, namespace: str, key: str, value: bytes, seconds: float | None = None) -> bool:
        """Keep it, fresh for so long, or as long as its namespace says, and stale for as long as that says after.

        Answers whether it is kept: a value over MAX_VALUE is not.
        """
        ...

    async def forget(self, namespace: str, key: str) -> bool:
        """Answers whether there was one."""
        ...
