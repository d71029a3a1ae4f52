"""One promise for every cache: what is kept is found while it lives, fresh and then stale, and by its own name only.

The one on Redis is driven over TCP against a stub, and against a real server: `KFM_TEST_REDIS` names one, or
`redis-server` is on the PATH.
"""

import asyncio
import os
import shutil
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kfm_server.breaker import FAILURES, OPEN_SECONDS
from kfm_server.cache.in_process import InProcessCache
from kfm_server.cache.lifetimes import MAX_SECONDS, Lifetime, Lifetimes
from kfm_server.cache.redis import RedisCache
from kfm_server.ports.cache import MAX_KEY, MAX_VALUE, Cache, Cached, CacheInvalid, CacheUnavailable
from redis.asyncio import Redis

from tests.support.redis_stub import RedisStub
from tests.unit.test_breaker import Clock

pytestmark = pytest.mark.requirement("M3")

LIFETIMES = Lifetimes(Lifetime(60.0), {"replies": Lifetime(10.0, stale=100.0)})


@dataclass
class Kept:
    """A cache, and how time passes for what it keeps."""

    cache: Cache
    advance: Callable[[float], Awaitable[None]]


@asynccontextmanager
async def real_redis(home: Path) -> AsyncGenerator[str]:
    """The URL of a real server."""
    if given := os.environ.get("KFM_TEST_REDIS"):
        yield given
        return
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("NO REAL REDIS: neither KFM_TEST_REDIS is set nor redis-server on the PATH")
    socket = home / "redis.sock"
    arguments = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(home))
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b"ready to accept" not in (line := await process.stdout.readline()).lower():
                assert line, "redis-server ended"
        yield f"unix://{socket}"
    finally:
        process.terminate()
        await process.communicate()


async def age(url: str, prefix: str, seconds: float) -> None:
    """Take so much off what all keys of the prefix have left."""
    client: Any = Redis.from_url(url)
    async with client:
        async for key in client.scan_iter(f"{prefix}:*"):
            await client.pexpire(key, int(await client.pttl(key) - seconds * 1000))


@pytest.fixture(params=["in process", "redis stub", "redis"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Kept]:
    """Each cache in turn."""
    clock = Clock()

    async def advance(seconds: float) -> None:
        clock.seconds += seconds

    async with AsyncExitStack() as stack:
        if request.param == "in process":
            yield Kept(InProcessCache(clock, LIFETIMES), advance)
        elif request.param == "redis stub":
            url = await stack.enter_async_context(RedisStub(clock).serve())
            yield Kept(
                await stack.enter_async_context(RedisCache.open(url, LIFETIMES, call_seconds=60)), advance
            )
        else:
            url = await stack.enter_async_context(real_redis(tmp_path))
            prefix = f"test-{uuid.uuid4().hex}"
            cache = await stack.enter_async_context(
                RedisCache.open(url, LIFETIMES, prefix=prefix, call_seconds=60)
            )

            async def pass_by(seconds: float) -> None:
                await age(url, prefix, seconds)

            yield Kept(cache, pass_by)


@pytest.mark.parametrize("value", [b"", b"\0\r\n$-1\r\n", bytes(range(256)) * 1000])
async def test_any_bytes_are_found_as_they_were_under_their_own_name_only(kept: Kept, value: bytes) -> None:
    assert await kept.cache.get("replies", "k") is None
    assert await kept.cache.put("replies", "k", value)
    assert await kept.cache.get("replies", "k") == Cached(value, True)
    for namespace, key in (("replies", "K"), ("replies", ""), ("other", "k"), ("replies", "k\n")):
        assert await kept.cache.get(namespace, key) is None


async def test_the_latest_value_is_the_one_that_is_kept(kept: Kept) -> None:
    for value in (b"one", b"two"):
        await kept.cache.put("a", "k", value)
    assert await kept.cache.get("a", "k") == Cached(b"two", True)
    assert await kept.cache.forget("a", "k")
    assert not await kept.cache.forget("a", "k")
    assert await kept.cache.get("a", "k") is None


async def test_a_value_is_fresh_then_stale_then_gone(kept: Kept) -> None:
    await kept.cache.put("replies", "k", b"x")
    await kept.advance(9)
    assert await kept.cache.get("replies", "k") == Cached(b"x", True)
    await kept.advance(2)
    assert await kept.cache.get("replies", "k") == Cached(b"x", False)
    await kept.advance(98)
    assert await kept.cache.get("replies", "k") == Cached(b"x", False)
    await kept.advance(2)
    assert await kept.cache.get("replies", "k") is None
    assert not await kept.cache.forget("replies", "k")


async def test_a_lifetime_is_the_values_own_or_its_namespaces_or_the_default(kept: Kept) -> None:
    await kept.cache.put("replies", "own", b"x", 1000.0)
    await kept.cache.put("replies", "namespaces", b"x")
    await kept.cache.put("other", "default", b"x")
    await kept.advance(30)
    assert await kept.cache.get("replies", "own") == Cached(b"x", True)
    assert await kept.cache.get("replies", "namespaces") == Cached(b"x", False)
    assert await kept.cache.get("other", "default") == Cached(b"x", True)
    await kept.advance(31)
    assert await kept.cache.get("other", "default") is None


async def test_a_value_put_again_lives_anew(kept: Kept) -> None:
    await kept.cache.put("a", "k", b"x")
    await kept.advance(50)
    await kept.cache.put("a", "k", b"x")
    await kept.advance(50)
    assert await kept.cache.get("a", "k") == Cached(b"x", True)


async def test_a_value_over_the_limit_is_not_kept_and_what_was_kept_is_gone(kept: Kept) -> None:
    assert await kept.cache.put("a", "k", b"x" * MAX_VALUE)
    assert not await kept.cache.put("a", "k", b"x" * (MAX_VALUE + 1))
    assert await kept.cache.get("a", "k") is None


@pytest.mark.parametrize(
    ("namespace", "key", "seconds", "why"),
    [
        ("", "k", None, "namespace"),
        ("A", "k", None, "namespace"),
        ("a:b", "k", None, "namespace"),
        ("a" * 33, "k", None, "namespace"),
        ("a", "k" * (MAX_KEY + 1), None, "max_key=4096"),
        ("a", "k", 0.0, "min_seconds=0.001"),
        ("a", "k", float("nan"), "min_seconds=0.001"),
        ("a", "k", MAX_SECONDS + 1, "max_seconds=2592000"),
    ],
)
async def test_a_name_or_a_lifetime_that_cannot_be_is_refused(
    kept: Kept, namespace: str, key: str, seconds: float | None, why: str
) -> None:
    with pytest.raises(CacheInvalid, match=why):
        await kept.cache.put(namespace, key, b"x", seconds)


async def test_many_at_once_do_not_mix(kept: Kept) -> None:
    async def one(n: int) -> bool:
        await kept.cache.put("a", str(n), str(n).encode())
        return await kept.cache.get("a", str(n)) == Cached(str(n).encode(), True)

    assert all(await asyncio.gather(*(one(n) for n in range(200))))


async def test_in_process_the_one_asked_for_longest_ago_goes_first() -> None:
    cache = InProcessCache(Clock(), max_entries=3)
    for n in range(5):
        await cache.put("a", str(n), b"x")
        await cache.get("a", "2")
    assert [await cache.get("a", str(n)) is not None for n in range(5)] == [False, False, True, True, True]
    assert len(cache) == 3


async def test_in_process_bytes_are_bounded_too() -> None:
    cache = InProcessCache(Clock(), max_bytes=10_000)
    for n in range(100):
        assert await cache.put("a", str(n), b"x" * 1000)
    assert 0 < len(cache) <= 6
    assert await cache.get("a", "99") is not None
    assert not await cache.put("a", "99", b"x" * 10_000)
    assert await cache.get("a", "99") is None


async def test_in_process_what_expired_is_not_kept_on_being_asked_for() -> None:
    clock = Clock()
    cache = InProcessCache(clock)
    await cache.put("a", "k", b"x", 1.0)
    clock.seconds += 1
    assert await cache.get("a", "k") is None
    assert len(cache) == 0


async def test_a_redis_that_is_away_is_left_alone_and_found_again() -> None:
    clock, seconds = Clock(), Clock()
    stub = RedisStub(seconds)
    stub.hangs_up = True
    async with stub.serve() as url, RedisCache.open(url, call_seconds=60, now=clock) as cache:
        for _ in range(FAILURES):
            with pytest.raises(CacheUnavailable, match="Redis is away: ConnectionError"):
                await cache.get("a", "k")
        asked = len(stub.asked)
        with pytest.raises(CacheUnavailable, match="tried again in 10 s"):
            await cache.put("a", "k", b"x")
        assert len(stub.asked) == asked
        stub.hangs_up = False
        clock.seconds += OPEN_SECONDS
        assert await cache.put("a", "k", b"x")
        assert await cache.get("a", "k") == Cached(b"x", True)


async def test_a_redis_that_does_not_answer_is_waited_for_no_longer_than_was_said() -> None:
    stub = RedisStub(time.monotonic)
    stub.mute = True
    async with stub.serve() as url, RedisCache.open(url, call_seconds=0.05) as cache:
        with pytest.raises(CacheUnavailable, match="Redis is away: TimeoutError"):
            await cache.get("a", "k")


async def test_a_redis_that_is_not_there_and_one_that_is_full_are_unavailable() -> None:
    stub = RedisStub(time.monotonic)
    async with stub.serve() as url, RedisCache.open(url, call_seconds=60) as cache:
        stub.refuse = "OOM command not allowed when used memory > 'maxmemory'."
        for _ in range(2 * FAILURES):  # it answers: no reason to leave it alone
            with pytest.raises(CacheUnavailable, match=r"Redis refuses: .*maxmemory"):
                await cache.put("a", "k", b"x")
        assert await cache.get("a", "k") is None
    async with RedisCache.open(url) as cache:
        with pytest.raises(CacheUnavailable, match="Redis is away: ConnectionError"):
            await cache.get("a", "k")
