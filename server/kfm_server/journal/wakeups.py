"""Wake-ups between processes by LISTEN/NOTIFY: hints only, on connections of their own, after the commit.

NOTIFY in the append's transaction would let one commit at a time through.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from kfm_server.journal.faults import Fault, fault_of

_RETRY_SECONDS = (0.1, 1.0)


class Wakeups:
    """Sends and hears wake-ups on one channel. What is sent while one is on its way goes out as one."""

    def __init__(self, dsn: str, channel: str) -> None:
        self._dsn = dsn
        self._channel = channel
        self._callbacks: list[Callable[[], None]] = []
        self._wanted = asyncio.Event()
        self._lost = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, dsn: str, channel: str) -> AsyncGenerator["Wakeups"]:
        """Connect in the background, and again whenever the connection is lost."""
        wakeups = cls(dsn, channel)
        task = asyncio.create_task(wakeups._run(), name=f"wakeups-{channel}")
        try:
            yield wakeups
        finally:
            task.cancel()
            await asyncio.wait((task,))

    def send(self) -> None:
        """Wake everybody who listens, soon."""
        self._wanted.set()

    def on_wake(self, callback: Callable[[], None]) -> None:
        """Call it at each wake-up, and after each reconnection, for one may have been missed."""
        self._callbacks.append(callback)

    def _heard(self, *_: object) -> None:
        for callback in tuple(self._callbacks):
            callback()

    def _ended(self, _: Any) -> None:
        self._lost.set()
        self._wanted.set()

    async def _run(self) -> None:
        while True:
            connection: Any = None
            try:
                connection = await asyncpg.connect(
                    self._dsn,
                    timeout=10,
                    command_timeout=10,
                    server_settings={"application_name": f"kfm-{self._channel}", "synchronous_commit": "off"},
                )
                self._lost.clear()
                connection.add_termination_listener(self._ended)
                await connection.add_listener(self._channel, self._heard)
                self._heard()
                while not self._lost.is_set():
                    await self._wanted.wait()
                    self._wanted.clear()
                    if not self._lost.is_set():
                        await connection.execute("select pg_notify($1, '')", self._channel)
            except Exception as error:
                if fault_of(error) is Fault.ROW:
                    raise
            finally:
                if connection is not None:
                    connection.terminate()
            await asyncio.sleep(random.uniform(*_RETRY_SECONDS))
