"""The port Cache in this process: bounded, and what was asked for longest ago goes first."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kfm_server.cache.lifetimes import Lifetimes, check
from kfm_server.ports.cache import MAX_VALUE, Cached

MAX_ENTRIES: Final = 4096
"""Most values."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Most that they take together, in bytes."""
_AROUND = 512
"""Bytes that an entry takes beside its key and its value, about."""


@dataclass(frozen=True, slots=True)
class _Kept:
    value: bytes
    size: int
    fresh_until: float
    until: float


class InProcessCache:
    """See ports.cache.Cache. Never unavailable."""

    def __init__(
        self,
        now: Callable[[], float],
        lifetimes: Lifetimes | None = None,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """`now` tells seconds."""
        self._now, self._lifetimes = now, lifetimes or Lifetimes()
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, namespace: str, key: str) -> Cached | None:
        """As the port says."""
        check(namespace, key)
        place = (namespace, key)
        kept = self._kept.get(place)
        if kept is None:
            return None
        now = self._now()
        if kept.until <= now:
            self._drop(place)
            return None
        self._kept.move_to_end(place)
        return Cached(kept.value, now < kept.fresh_until)

    async def put(self, namespace: str, key: str, value: bytes, seconds: float | None = None) -> bool:
        """As the port says."""
        check(namespace, key)
        lifetime = self._lifetimes.of(namespace, seconds)
        place = (namespace, key)
        if place in self._kept:
            self._drop(place)
        size = _AROUND + len(key) + len(value)
        if len(value) > MAX_VALUE or size > self._max_bytes:
            return False
        now = self._now()
        self._kept[place] = _Kept(value, size, now + lifetime.fresh, now + lifetime.whole)
        self._bytes += size
        while len(self._kept) > self._max_entries or self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))
        return True

    async def forget(self, namespace: str, key: str) -> bool:
        """As the port says."""
        check(namespace, key)
        kept = self._kept.get((namespace, key))
        if kept is None:
            return False
        self._drop((namespace, key))
        return kept.until > self._now()

    def _drop(self, place: tuple[str, str]) -> None:
        self._bytes -= self._kept.pop(place).size
