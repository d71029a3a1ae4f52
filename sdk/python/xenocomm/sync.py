"""Xenocomm without `await`: the same classes, wrapped at run time (docs/decisions/0007-sync-facade.md).

    with SyncClient() as kfm:
        turn = kfm.turns.start("what is 2 + 2?")
        for text in turn.text():
            print(text)

There is no second implementation: a call runs the asynchronous one on a background event loop and waits. `sync.pyi` is
generated from the asynchronous signatures by sync_stub.py.
"""

import asyncio
import atexit
import concurrent.futures
import functools
import inspect
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from xenocomm.client import Client
from xenocomm.dead_letters import DeadLetters
from xenocomm.events import Events, EventWatch
from xenocomm.handle import TurnHandle
from xenocomm.memory import Memory
from xenocomm.models import Models
from xenocomm.paging import Listing
from xenocomm.personalities import Personalities
from xenocomm.server import Server
from xenocomm.sessions import Sessions
from xenocomm.turns import Turns

_CANCEL_S = 5.0
"""How long a call that was interrupted, or a loop that ends, is waited for."""


class BackgroundLoop:
    """An event loop on a thread of its own."""

    def __init__(self) -> None:
        """Starts the thread."""
        self.users = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="xenocomm", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run it there and wait. RuntimeError on the loop's own thread, which would wait for itself.

        Ctrl-C, or whatever else ends the wait, cancels it first.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "a blocking call inside a callback of the SDK: use `kfm.aio` there, or return first"
            )
        over = threading.Event()

        async def whole() -> Any:
            try:
                return await work
            finally:
                over.set()

        future = asyncio.run_coroutine_threadsafe(whole(), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("this SyncClient was closed during the call") from None
        finally:
            if not future.done():
                future.cancel()
                over.wait(_CANCEL_S)

    def stop(self) -> None:
        """Cancel what still runs, and end the thread."""
        if self._thread.is_alive():
            ending = asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop)
            concurrent.futures.wait([ending], _CANCEL_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CANCEL_S)
        if not self._thread.is_alive():
            self._loop.close()

    async def _cancel_all(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self._loop.shutdown_asyncgens()


_lock = threading.Lock()
_shared: BackgroundLoop | None = None


def acquire() -> BackgroundLoop:
    """The one loop of the process, for one more user."""
    global _shared
    with _lock:
        if _shared is None:
            _shared = BackgroundLoop()
        _shared.users += 1
        return _shared


def release(loop: BackgroundLoop) -> None:
    """One user less; the last one ends the thread."""
    global _shared
    with _lock:
        loop.users -= 1
        if loop.users or loop is not _shared:
            return
        _shared = None
    loop.stop()


def _forget() -> None:
    """In a forked child: the parent's thread is not here."""
    global _shared, _lock
    _shared, _lock = None, threading.Lock()


def _at_exit() -> None:
    if _shared is not None:
        _shared.stop()


os.register_at_fork(after_in_child=_forget)
atexit.register(_at_exit)


class Blocking:
    """An object of the SDK whose calls wait. `aio` is the asynchronous object behind it."""

    __slots__ = ("_background", "aio")

    def __init__(self, aio: Any, background: BackgroundLoop) -> None:
        """Made by the facade."""
        self.aio = aio
        self._background = background

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = getattr(self.aio, name)
        return self._blocking(value) if inspect.ismethod(value) else _wrapped(value, self._background)

    def __iter__(self) -> "BlockingIterator":
        if not hasattr(self.aio, "__aiter__"):
            raise TypeError(f"{type(self).__name__} is not iterable")
        return BlockingIterator(aiter(self.aio), self._background)

    def __enter__(self) -> "Blocking":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self.aio).replace(type(self.aio).__name__, type(self).__name__, 1)

    def __dir__(self) -> list[str]:
        return [name for name in dir(self.aio) if not name.startswith("_")]

    def _blocking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*positional: Any, **named: Any) -> Any:
            async def there() -> Any:
                # What is not async runs there, too: nothing of the SDK is touched from two threads.
                found = method(*positional, **named)
                return await found if inspect.isawaitable(found) else found

            return _wrapped(self._background.run(there()), self._background)

        return call


class BlockingIterator:
    """An asynchronous iterator that waits. `close`, or `with`, ends it early; so does forgetting it, later."""

    def __init__(self, iterator: Any, background: BackgroundLoop) -> None:
        """Made by the facade."""
        self._iterator = iterator
        self._background = background

    def __iter__(self) -> "BlockingIterator":
        return self

    def __next__(self) -> Any:
        found = self._background.run(_next(self._iterator))
        if found is _END:
            raise StopIteration
        return found

    def __enter__(self) -> "BlockingIterator":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the stream."""
        self._background.run(self._iterator.aclose())


_END = object()


async def _next(iterator: Any) -> Any:
    # StopIteration cannot leave a coroutine.
    return await anext(iterator, _END)


ACTIVE: tuple[type[Any], ...] = (
    Client,
    DeadLetters,
    Events,
    EventWatch,
    Listing,
    Memory,
    Models,
    Personalities,
    Server,
    Sessions,
    TurnHandle,
    Turns,
)
"""Classes whose objects do something; all others are values and stay as they are."""


class SyncClient(Blocking):
    """`Client` without `await`: the same arguments, the same names. May be used from several threads.

    All of a process share one background loop; closing the last one ends it. A call that is interrupted with Ctrl-C is
    cancelled; the turn goes on.
    """

    __slots__ = ("_holds",)

    def __init__(self, *positional: Any, **named: Any) -> None:
        """As Client. InvalidArgument."""
        client = Client(*positional, **named)
        self._holds = True
        super().__init__(client, acquire())

    def close(self) -> None:
        """Close the connection; turns go on. The client cannot be used again: RuntimeError."""
        if not self._holds:
            return
        self._holds = False
        try:
            self._background.run(self.aio.close())
        finally:
            release(self._background)


_FACES: dict[type[Any], type[Blocking]] = {
    kind: type(
        f"Sync{kind.__name__}", (Blocking,), {"__slots__": (), "__doc__": f"`{kind.__name__}` that waits."}
    )
    for kind in ACTIVE
}
globals().update({face.__name__: face for kind, face in _FACES.items() if kind is not Client})


def _wrapped(value: Any, background: BackgroundLoop) -> Any:
    face = _FACES.get(type(value))
    if face is not None:
        return face(value, background)
    if hasattr(value, "__anext__"):
        return BlockingIterator(value, background)
    return value
