"""Connections that see one tenant: the database itself hides the rows of all others."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from kfm_server.ports.memory import MemoryInvalid, MemoryUnavailable

ROLE: Final = "kfm_memory"
_ACQUIRE_SECONDS = 5.0
# In one round trip; hexadecimal digits need no quoting, whatever the tenant is called.
_BEGIN = "begin; select set_config('kfm.tenant', convert_from(decode('{}', 'hex'), 'UTF8'), true)"
_CALL_SECONDS = 60.0
_AWAY = (OSError, TimeoutError, EOFError, asyncpg.InterfaceError, asyncpg.InternalClientError)
_AWAY_STATES = ("08", "40", "53", "55", "57", "58", "XX", "25006")


class TenantPool:
    """At most `most` connections to a migrated database, none of them before the first use. Made by `open`."""

    def __init__(self, dsn: str, most: int) -> None:
        self._dsn = dsn
        self._most = most
        self._pool: Any = None
        self._opening = asyncio.Lock()
        self._inits: list[Callable[[Any], Awaitable[None]]] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, most: int = 4) -> AsyncGenerator["TenantPool"]:
        """On leaving, its connections are closed. Connects to nothing yet."""
        pool = cls(dsn, most)
        try:
            yield pool
        finally:
            await pool._close()

    async def _close(self) -> None:
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(2):
                await self._pool.close()
        except (*_AWAY, asyncpg.PostgresError):
            self._pool.terminate()

    @asynccontextmanager
    async def tenant(self, tenant_id: str) -> AsyncGenerator[Any]:
        """A transaction that sees, and can write, only this tenant's rows. Raises MemoryUnavailable, MemoryInvalid."""
        if not tenant_id:
            raise MemoryInvalid("no tenant is named")
        async with self._faults():
            pool = await self._opened()
            async with pool.acquire(timeout=_ACQUIRE_SECONDS) as connection:
                await connection.execute(_BEGIN.format(tenant_id.encode("utf-8", "surrogatepass").hex()))
                try:
                    yield connection
                except BaseException:
                    if not connection.is_closed():
                        await connection.execute("rollback")
                    raise
                await connection.execute("commit")

    @asynccontextmanager
    async def owner(self) -> AsyncGenerator[Any]:
        """A transaction of the user who owns the tables, to make new ones; it stands in line with others who do."""
        async with self._faults():
            connection: Any = await asyncpg.connect(self._dsn, timeout=10, command_timeout=_CALL_SECONDS)
            try:
                async with connection.transaction():
                    await connection.execute("select pg_advisory_xact_lock(hashtext('kfm_memory'))")
                    yield connection
            finally:
                await connection.close()

    async def prepare(self, init: Callable[[Any], Awaitable[None]]) -> None:
        """Have every connection set up by `init` from now on, those that are open already too."""
        self._inits.append(init)
        pool = await self._opened()
        await pool.expire_connections()

    @asynccontextmanager
    async def _faults(self) -> AsyncGenerator[None]:
        try:
            yield
        except asyncpg.DataError as error:  # also an InterfaceError: it must come first
            raise MemoryInvalid(f"the database refuses a value: {error}") from error
        except (*_AWAY, asyncpg.PostgresError) as error:
            state = getattr(error, "sqlstate", None)
            if state is None or state.startswith(_AWAY_STATES):
                raise MemoryUnavailable(f"the database is away: {type(error).__name__}") from error
            raise

    async def _opened(self) -> Any:
        async with self._opening:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=self._most,
                    max_inactive_connection_lifetime=300.0,
                    command_timeout=_CALL_SECONDS,
                    timeout=10,
                    init=self._bind,
                    reset=_keep,
                    # One plan for all tenants would be the plan of the largest.
                    server_settings={
                        "application_name": "kfm-memory",
                        "jit": "off",
                        "plan_cache_mode": "force_custom_plan",
                    },
                )
            return self._pool

    async def _bind(self, connection: Any) -> None:
        """Give up what could see past the policies; refuse to work if that cannot be."""
        if await connection.fetchval(
            "select pg_has_role($1, 'member') from pg_roles where rolname = $1", ROLE
        ):
            await connection.execute(f"set role {ROLE}")
        if not await connection.fetchval("select row_security_active('kfm_memory.facts')"):
            raise MemoryUnavailable(
                f"the database user sees past row-level security and may not work as the role {ROLE}"
            )
        for init in self._inits:
            await init(connection)


async def _keep(connection: Any) -> None:
    """Every use is one transaction, and its settings end with it."""
