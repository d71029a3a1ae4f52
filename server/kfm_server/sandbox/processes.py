"""The tier `process`: CPython behind walls, one call at a time in each of a few processes that are kept warm."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from kfm_server.ports.sandbox import Function, Grant, Outcome, SandboxError, SandboxRefused, Snippet, Tier
from kfm_server.sandbox.confined import Confined
from kfm_server.sandbox.reading import check, directories


class ProcessSandbox:
    """Sandbox. A process serves calls with the same directories; what a call leaves is gone before the next.

    Calls beyond `size` at once wait; so many processes are kept at most, the longest unused leave first.
    """

    tier: Tier = "process"

    def __init__(self, *, size: int = 4) -> None:
        """Nothing is started before the first call."""
        self._size = size
        self._places = asyncio.Semaphore(size)
        self._idle: list[tuple[tuple[Path, ...], Confined]] = []
        self._busy: set[Confined] = set()
        self._closed = False

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, *, size: int = 4) -> AsyncGenerator["ProcessSandbox"]:
        """One that is closed at the end."""
        sandbox = cls(size=size)
        try:
            yield sandbox
        finally:
            await sandbox.close()

    async def run(
        self, code: Function | Snippet, arguments: Mapping[str, Any], grant: Grant | None = None
    ) -> Outcome:
        """As Sandbox has it."""
        grant = grant or Grant()
        request = check(code, arguments, grant)
        async with self._places:
            confined = await self._take(directories(grant))
            self._busy.add(confined)
            kept = False
            try:
                outcome = await confined.call(request, grant)
                kept = True
                return outcome
            except SandboxError:
                kept = confined.alive
                raise
            finally:
                self._busy.discard(confined)
                if kept and not self._closed:
                    self._idle.append((grant.read_only, confined))
                else:
                    await confined.end()

    async def close(self) -> None:
        """As Sandbox has it."""
        self._closed = True
        idle, self._idle = self._idle, []
        for confined in (*self._busy, *(confined for _, confined in idle)):
            await confined.end()

    async def _take(self, read_only: tuple[Path, ...]) -> Confined:
        if self._closed:
            raise SandboxRefused("The sandbox is closed.")
        for place in reversed(range(len(self._idle))):
            if self._idle[place][0] == read_only:
                _, confined = self._idle.pop(place)
                if confined.alive:
                    return confined
                await confined.end()
        while self._idle and len(self._idle) + len(self._busy) >= self._size:
            _, oldest = self._idle.pop(0)
            await oldest.end()
        confined = await Confined.start(read_only)
        if self._closed:  # meanwhile
            await confined.end()
            raise SandboxRefused("The sandbox is closed.")
        return confined
