"""How calls that wait learn that the server is stopping."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from kfm.catalogue.errors import Draining

T = TypeVar("T")


class Drain:
    """A switch that is thrown once. What waits under it is interrupted at that moment."""

    def __init__(self) -> None:
        """Not begun."""
        self.begun = False
        self._waiting: set[asyncio.Timeout] = set()

    async def wait(self, start: Callable[[], Awaitable[T]]) -> T:
        """Await what `start` makes; Draining instead once the switch is thrown, and it is cancelled."""
        if self.begun:
            raise Draining
        # A timeout without an end costs no task of its own, and can be pulled forward.
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._waiting.add(scope)
                return await start()
        except TimeoutError:
            if scope.expired():
                raise Draining from None
            raise
        finally:
            self._waiting.discard(scope)

    def begin(self) -> None:
        """Throw the switch."""
        self.begun = True
        now = asyncio.get_running_loop().time()
        for scope in tuple(self._waiting):
            scope.reschedule(now)
