"""How long things are kept: by namespace, within bounds."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from kfm_server.ports.cache import MAX_KEY, CacheInvalid

MIN_SECONDS: Final = 0.001
MAX_SECONDS: Final = 30 * 24 * 3600
"""Bounds of the time that a value is fresh; and the most that it is stale after it."""
_NAMESPACE = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds that a value is fresh, and then stale. Raises CacheInvalid."""

    fresh: float
    stale: float = 0.0

    def __post_init__(self) -> None:
        if not (MIN_SECONDS <= self.fresh <= MAX_SECONDS and 0 <= self.stale <= MAX_SECONDS):
            raise CacheInvalid(
                f"fresh for {self.fresh:g} and stale for {self.stale:g} seconds: min_seconds={MIN_SECONDS},"
                f" max_seconds={MAX_SECONDS}"
            )

    @property
    def whole(self) -> float:
        """Seconds until the value is gone."""
        return self.fresh + self.stale


class Lifetimes:
    """The lifetime of each namespace."""

    def __init__(
        self, default: Lifetime = Lifetime(300.0), of: Mapping[str, Lifetime] = MappingProxyType({})
    ) -> None:
        """`of`: those of namespaces that have one of their own. Raises CacheInvalid."""
        for namespace in of:
            check(namespace, "")
        self._default, self._of = default, dict(of)

    def of(self, namespace: str, fresh: float | None = None) -> Lifetime:
        """Of a value: the namespace's, or fresh for so long instead. Raises CacheInvalid."""
        found = self._of.get(namespace, self._default)
        return found if fresh is None else Lifetime(fresh, found.stale)


def check(namespace: str, key: str) -> None:
    """Whether these are names. Raises CacheInvalid."""
    if not _NAMESPACE.fullmatch(namespace):
        raise CacheInvalid(f"{namespace[:80]!r} is no namespace: {_NAMESPACE.pattern}")
    if len(key) > MAX_KEY:
        raise CacheInvalid(f"a key of {len(key)} characters is over max_key={MAX_KEY}")
