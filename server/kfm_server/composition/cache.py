"""The cache of this process: its own, or Redis."""

from collections.abc import Callable
from contextlib import AsyncExitStack

from kfm_server.cache.in_process import InProcessCache
from kfm_server.cache.lifetimes import Lifetime, Lifetimes
from kfm_server.memory import preferences
from kfm_server.ports.cache import Cache
from kfm_server.settings import Settings, SettingsError

LIFETIMES = Lifetimes(
    of={preferences.NAMESPACE: Lifetime(preferences.FRESH_SECONDS, preferences.STALE_SECONDS)}
)


async def open_cache(stack: AsyncExitStack, settings: Settings, now: Callable[[], float]) -> Cache:
    """`now` tells seconds. Connects to nothing yet. Raises SettingsError."""
    if not settings.redis_url:
        return InProcessCache(now, LIFETIMES)
    try:
        from kfm_server.cache.redis import RedisCache  # an extra, and a while to import
    except ImportError as error:
        raise SettingsError("KFM_REDIS_URL: install kfm-server[redis]") from error
    try:
        return await stack.enter_async_context(
            RedisCache.open(settings.redis_url.reveal(), LIFETIMES, now=now)
        )
    except ValueError as error:
        raise SettingsError("KFM_REDIS_URL: not of the form redis://user:password@host:port/0") from error
