"""An event loop with virtual time, in which a whole process can be frozen, thawed or killed between two callbacks."""

import asyncio
import selectors
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from typing import Any


class Stuck(Exception):
    """Nothing is ready and no timer is set, or callbacks run without end while time stands still."""


class Host:
    """What callbacks belong to. Frozen: they are kept back. Dead: they are dropped, `finally` blocks and all."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self.on_kill: list[Callable[[], None]] = []
        self._parked: list[Callable[[], None]] = []

    def park(self, resume: Callable[[], None]) -> None:
        """Keep a callback for later."""
        self._parked.append(resume)

    def thaw(self) -> None:
        """Deliver what was kept back, in order."""
        self.frozen = False
        parked, self._parked = self._parked, []
        for resume in parked:
            resume()

    def kill(self) -> None:
        """As SIGKILL: nothing of it runs again."""
        if self.dead:
            return
        self.dead = True
        self._parked.clear()
        for callback in self.on_kill:
            callback()


HOST: ContextVar[Host | None] = ContextVar("HOST", default=None)
_SPIN = 200_000
"""Callbacks at one instant that count as a livelock."""


def host_context(host: Host) -> Context:
    """A context whose callbacks belong to a host."""
    context = Context()
    context.run(HOST.set, host)
    return context


class _Selector(selectors.BaseSelector):
    """Never waits: it moves the clock."""

    def __init__(self) -> None:
        self.loop: VirtualLoop | None = None
        self._inner = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._inner.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._inner.get_map()

    def close(self) -> None:
        self._inner.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        self.loop.idle(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Time stands still while anything is ready and jumps to the next timer when nothing is."""

    def __init__(self) -> None:
        self._virtual = 0.0
        self._spun = 0
        selector = _Selector()
        super().__init__(selector)
        selector.loop = self

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual

    def idle(self, timeout: float | None) -> None:
        """Called where a real loop would wait. Raises Stuck."""
        if timeout is None:
            raise Stuck("nothing is ready and no timer is set")
        if timeout > 0:
            self._virtual += timeout
            self._spun = 0
            return
        self._spun += 1
        if self._spun > _SPIN:
            raise Stuck(f"time stands still at {self._virtual:.6f} s")

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        """As asyncio's, through the host of the context."""
        context = copy_context() if context is None else context  # an empty one is false
        host = context.get(HOST)
        if host is None:
            return super().call_soon(callback, *args, context=context)
        made: list[asyncio.Handle] = []
        made.append(super().call_soon(self._deliver, host, made, callback, args, context, context=context))
        return made[0]

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As asyncio's, through the host of the context."""
        context = copy_context() if context is None else context  # an empty one is false
        host = context.get(HOST)
        if host is None:
            return super().call_at(when, callback, *args, context=context)
        made: list[asyncio.Handle] = []
        timer = super().call_at(when, self._deliver, host, made, callback, args, context, context=context)
        made.append(timer)
        return timer

    def _deliver(
        self, host: Host, made: list[asyncio.Handle], callback: Any, args: tuple[Any, ...], context: Context
    ) -> None:
        if host.dead or made[0].cancelled():
            return
        if host.frozen:
            again = super().call_soon
            host.park(
                lambda: again(self._deliver, host, made, callback, args, context, context=context) and None
            )
            return
        callback(*args)
