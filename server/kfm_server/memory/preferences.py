"""Facts and preferences with a short-term cache of the preferences, which every prompt of a model is told."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, Literal

import orjson
import structlog

from kfm_server.memory.facts import Facts
from kfm_server.ports.cache import Cache, Cached, CacheInvalid, CacheUnavailable
from kfm_server.ports.memory import Fact, Kind, MemoryInvalid, MemoryUnavailable, Preference

NAMESPACE: Final = "preferences-1"
"""Of the cache; another number for another form of what is kept."""
FRESH_SECONDS: Final = 5.0
"""What another process changed may be told late by so much; what this one did is told at once."""
STALE_SECONDS: Final = 3600.0
"""So long after that it is told if memory cannot be reached."""
MAX_TOLD: Final = 50
"""Most preferences of a user that are told, by key."""
TRIES: Final = 2
log = structlog.get_logger(__name__)


class CachedFacts:
    """Facts, as UserFacts and UserData say; what is changed here is forgotten by the cache."""

    name = Facts.name

    def __init__(self, facts: Facts, cache: Cache) -> None:
        self._facts = facts
        self._cache = cache
        self._changes = 0
        """Made here. What was read while one was made is not kept: it may be what was before."""

    async def preferences(self, tenant_id: str, user_id: str) -> Sequence[Preference]:
        """What the user prefers: from the cache, else from memory, tried twice; stale if it cannot be reached, or none."""
        key = _key(tenant_id, user_id)
        kept = await self._kept(key)
        last = None if kept is None else _read(kept.value)
        if kept is not None and kept.fresh and last is not None:
            return last
        for _ in range(TRIES):
            changes = self._changes
            try:
                known = await self._facts.known(tenant_id, user_id, "preference", limit=MAX_TOLD)
            except MemoryUnavailable as away:
                log.warning("preferences_not_read", error=str(away), stale=last is not None)
                continue
            except MemoryInvalid:  # nothing can be kept of a user of this name
                return []
            found = [Preference(fact.key, fact.value) for fact in known]
            if changes == self._changes:
                await self._keep(key, found)
            return found
        return last or []

    async def remember(
        self, tenant_id: str, user_id: str, kind: Kind, key: str, value: str, source: str
    ) -> Fact:
        """As UserFacts says."""
        fact = await self._facts.remember(tenant_id, user_id, kind, key, value, source)
        await self._changed(tenant_id, user_id)
        return fact

    async def known(
        self,
        tenant_id: str,
        user_id: str,
        kind: Kind | Literal[""] = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 100,
    ) -> Sequence[Fact]:
        """As UserFacts says."""
        return await self._facts.known(tenant_id, user_id, kind, after, limit)

    async def forget(self, tenant_id: str, user_id: str, kind: Kind, key: str) -> bool:
        """As UserFacts says."""
        was = await self._facts.forget(tenant_id, user_id, kind, key)
        await self._changed(tenant_id, user_id)
        return was

    def export(self, tenant_id: str, user_id: str) -> AsyncGenerator[Mapping[str, Any]]:
        """As UserData says."""
        return self._facts.export(tenant_id, user_id)

    async def erase(self, tenant_id: str, user_id: str) -> int:
        """As UserData says."""
        count = await self._facts.erase(tenant_id, user_id)
        await self._changed(tenant_id, user_id)
        return count

    async def _kept(self, key: str) -> Cached | None:
        try:
            return await self._cache.get(NAMESPACE, key)
        except (CacheUnavailable, CacheInvalid):
            return None

    async def _keep(self, key: str, found: Sequence[Preference]) -> None:
        try:
            await self._cache.put(NAMESPACE, key, orjson.dumps(found))
        except (CacheUnavailable, CacheInvalid):
            return  # then the next one asks memory

    async def _changed(self, tenant_id: str, user_id: str) -> None:
        self._changes += 1
        try:
            await self._cache.forget(NAMESPACE, _key(tenant_id, user_id))
        except (CacheUnavailable, CacheInvalid):
            return  # what is kept there is fresh for FRESH_SECONDS, no longer


def _key(tenant_id: str, user_id: str) -> str:
    return f"{len(tenant_id)}:{tenant_id}:{user_id}"


def _read(value: bytes) -> Sequence[Preference] | None:
    try:
        return [Preference(**told) for told in orjson.loads(value)]
    except (ValueError, TypeError):  # of another release, or of nobody that is known
        return None
