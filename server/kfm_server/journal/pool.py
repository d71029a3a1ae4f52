"""Connections for everything but the append: reads, leases, TRANSACTIONAL tools."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from kfm_server.journal.faults import Fault, fault_of
from kfm_server.ports.journal import JournalUnavailable

T = TypeVar("T")
_ACQUIRE_SECONDS = 5.0
_CALL_SECONDS = 30.0


async def open_pool(dsn: str, name: str, most: int, idle_seconds: float = 300.0) -> Any:
    """A pool of at most `most` connections, one of them opened now; each is closed after `idle_seconds` without work.

    Raises OSError or PostgresError.
    """

    async def keep(connection: Any) -> None:
        """Our own calls leave nothing to reset; it would cost each a round trip."""

    return await asyncpg.create_pool(
        dsn,
        min_size=1,
        max_size=most,
        max_inactive_connection_lifetime=idle_seconds,
        command_timeout=_CALL_SECONDS,
        timeout=10,
        reset=keep,
        server_settings={"application_name": name, "jit": "off"},
    )


async def close_pool(pool: Any) -> None:
    """Close it; connections that are still busy after 2 s are cut."""
    try:
        async with asyncio.timeout(2):
            await pool.close()
    except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pool.terminate()


def gone(connection: Any) -> bool:
    """It has ended. The pool takes a connection back at that moment; what was lent then only raises."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True


def cut(connection: Any) -> None:
    """End it now, if it has not ended by itself."""
    if not gone(connection):
        connection.terminate()


async def once(pool: Any, work: Callable[[Any], Awaitable[T]]) -> T:
    """Do it; a lost connection is JournalUnavailable. For work that may not be done twice."""
    return await repeat(pool, work, patience=0.0)


async def repeat(pool: Any, work: Callable[[Any], Awaitable[T]], patience: float = 5.0) -> T:
    """Do it, again on another connection when one is lost, for at most `patience` seconds.

    Raises JournalUnavailable after that.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            async with pool.acquire(timeout=_ACQUIRE_SECONDS) as connection:
                return await work(connection)
        except Exception as error:
            if fault_of(error) is Fault.ROW or isinstance(error, JournalUnavailable):
                raise
            if loop.time() >= deadline:
                raise JournalUnavailable(repr(error)) from error
        await asyncio.sleep(random.uniform(0.01, 0.1))
