"""The port Cache on Redis 6 or newer, or what speaks its protocol: one cache for all processes."""

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from kfm_server.breaker import Breaker, BreakerOpen, Outcome
from kfm_server.cache.lifetimes import Lifetimes, check
from kfm_server.ports.cache import MAX_VALUE, Cached, CacheUnavailable

CALL_SECONDS: Final = 0.5
"""Longest that a call waits, unless told otherwise."""
MAX_CONNECTIONS: Final = 16
_STALE_BYTES = 8
"""Before a value: of its lifetime, how many milliseconds it is stale."""


class RedisCache:
    """See ports.cache.Cache. Made by `open`.

    Keys are `PREFIX:NAMESPACE:` and a digest. When Redis is away, calls are refused at once after the first few.
    """

    def __init__(
        self, client: Any, prefix: str, lifetimes: Lifetimes | None, now: Callable[[], float]
    ) -> None:
        self._client, self._prefix = client, prefix
        self._lifetimes = lifetimes or Lifetimes()
        self._breaker = Breaker(now)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        url: str,
        lifetimes: Lifetimes | None = None,
        *,
        prefix: str = "kfm",
        call_seconds: float = CALL_SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> AsyncGenerator["RedisCache"]:
        """`url`: redis://, rediss:// or unix://. Connects to nothing yet. `call_seconds`: longest wait for a connection, and for
        each answer on it; `now`: seconds, by which the breaker closes.

        Raises ValueError for an URL that is none.
        """
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=call_seconds,
            socket_connect_timeout=call_seconds,
            socket_timeout=call_seconds,
            retry=Retry(NoBackoff(), 1),  # a connection that was idle may be gone
        )
        client: Any = Redis.from_pool(pool)
        try:
            yield cls(client, prefix, lifetimes, now)
        finally:
            await client.aclose()

    async def get(self, namespace: str, key: str) -> Cached | None:
        """As the port says."""
        name = self._name(namespace, key)
        with self._call():
            async with self._client.pipeline(transaction=True) as asked:
                value, left_ms = await asked.get(name).pttl(name).execute()
        if value is None or left_ms < 0 or len(value) < _STALE_BYTES:
            return None
        return Cached(value[_STALE_BYTES:], left_ms > int.from_bytes(value[:_STALE_BYTES], "big"))

    async def put(self, namespace: str, key: str, value: bytes, seconds: float | None = None) -> bool:
        """As the port says."""
        name = self._name(namespace, key)
        lifetime = self._lifetimes.of(namespace, seconds)
        if len(value) > MAX_VALUE:
            await self.forget(namespace, key)
            return False
        stale = int(lifetime.stale * 1000).to_bytes(_STALE_BYTES, "big")
        with self._call():
            await self._client.set(name, stale + value, px=max(1, int(lifetime.whole * 1000)))
        return True

    async def forget(self, namespace: str, key: str) -> bool:
        """As the port says."""
        name = self._name(namespace, key)
        with self._call():
            return bool(await self._client.delete(name))

    def _name(self, namespace: str, key: str) -> str:
        check(namespace, key)
        return (
            f"{self._prefix}:{namespace}:{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()}"
        )

    @contextmanager
    def _call(self) -> Generator[None]:
        try:
            permit = self._breaker.enter()
        except BreakerOpen as refused:
            raise CacheUnavailable(
                f"Redis did not answer; it is tried again in {refused.seconds:g} s"
            ) from None
        outcome: Outcome = "failed"
        try:
            yield
            outcome = "answered"
        except asyncio.CancelledError:
            outcome = "left"
            raise
        except ResponseError as error:
            outcome = "answered"
            raise CacheUnavailable(f"Redis refuses: {error}") from error
        except (RedisError, OSError) as error:
            raise CacheUnavailable(f"Redis is away: {type(error).__name__}") from error
        finally:
            self._breaker.leave(permit, outcome)
