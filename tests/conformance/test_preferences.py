"""What prompts are told of a user: at once what was changed here, soon what was changed elsewhere, and stale what cannot be read."""

from collections.abc import AsyncGenerator, Sequence

import pytest
from kfm_server.cache.in_process import InProcessCache
from kfm_server.composition.cache import LIFETIMES
from kfm_server.memory.facts import Facts
from kfm_server.memory.preferences import FRESH_SECONDS, MAX_TOLD, NAMESPACE, STALE_SECONDS, CachedFacts
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.memory import Preference

from tests.unit.test_breaker import Clock

pytestmark = pytest.mark.requirement("R5", "M3")
NOBODY = "postgresql://kfm@127.0.0.1:1/none"
METRIC, TERSE = Preference("units", "metric"), Preference("tone", "terse")


@pytest.fixture
async def facts(database: str) -> AsyncGenerator[Facts]:
    async with TenantPool.open(database) as pool:
        yield Facts(pool)


async def told(facts: CachedFacts, user: str = "ann") -> Sequence[Preference]:
    return list(await facts.preferences("acme", user))


async def test_what_is_changed_here_is_told_at_once(facts: Facts) -> None:
    cached = CachedFacts(facts, InProcessCache(Clock(), LIFETIMES))
    assert await told(cached) == []
    await cached.remember("acme", "ann", "preference", "units", "metric", "user")
    await cached.remember("acme", "ann", "fact", "home", "Bern", "user")
    await cached.remember("acme", "bob", "preference", "units", "imperial", "user")
    assert await told(cached) == [METRIC]
    await cached.remember("acme", "ann", "preference", "tone", "terse", "user")
    assert await told(cached) == [TERSE, METRIC]
    await cached.forget("acme", "ann", "preference", "units")
    assert await told(cached) == [TERSE]
    await cached.erase("acme", "ann")
    assert await told(cached) == []
    assert await cached.preferences("other", "bob") == []


async def test_what_is_changed_elsewhere_is_told_once_the_cache_is_not_fresh(facts: Facts) -> None:
    clock = Clock()
    cached = CachedFacts(facts, InProcessCache(clock, LIFETIMES))
    assert await told(cached) == []
    await facts.remember("acme", "ann", "preference", "units", "metric", "user")
    assert await told(cached) == []
    clock.seconds += FRESH_SECONDS + 0.1
    assert await told(cached) == [METRIC]


async def test_where_memory_is_away_what_was_known_last_is_told_for_its_time(facts: Facts) -> None:
    clock = Clock()
    cache = InProcessCache(clock, LIFETIMES)
    async with TenantPool.open(NOBODY) as away:
        cut_off = CachedFacts(Facts(away), cache)
        assert await told(cut_off) == [], "a turn goes on without"
        await CachedFacts(facts, cache).remember("acme", "ann", "preference", "units", "metric", "user")
        assert await told(CachedFacts(facts, cache)) == [METRIC]
        clock.seconds += FRESH_SECONDS + STALE_SECONDS - 1
        assert await told(cut_off) == [METRIC]
        clock.seconds += 2
        assert await told(cut_off) == []


async def test_so_many_are_told_and_users_that_cannot_be_have_none(facts: Facts) -> None:
    cached = CachedFacts(facts, InProcessCache(Clock(), LIFETIMES))
    for n in range(MAX_TOLD + 1):
        await facts.remember("acme", "ann", "preference", f"p{n:03}", "x", "user")
    assert [p.key for p in await told(cached)] == [f"p{n:03}" for n in range(MAX_TOLD)]
    assert await told(cached, "u" * 300) == []


async def test_what_cannot_be_read_in_a_shared_cache_is_read_from_memory(facts: Facts) -> None:
    cache = InProcessCache(Clock(), LIFETIMES)
    await facts.remember("acme", "ann", "preference", "units", "metric", "user")
    for broken in (b"", b"{", b"[1]", b'[{"else": 1}]', b"7"):
        assert await cache.put(NAMESPACE, "4:acme:ann", broken)
        assert await told(CachedFacts(facts, cache)) == [METRIC]
