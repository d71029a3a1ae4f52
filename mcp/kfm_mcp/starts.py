"""Which idempotency key a start goes under, so that a start whose answer was lost is not made twice.

A client that lost an answer sends the call again as a new request with a new id, perhaps in a new session or from a
new process: of the call only its arguments stay the same. So:

- A key that the caller names stands, and holds for ever: the argument `idempotency_key`, or `kfm/idempotency_key` in
  `_meta`, or the HTTP header `Idempotency-Key`, in this order.
- Without one, identical arguments from the same client program go under the same key for five minutes, or until
  some call names the turn: then its id, and so the answer, has arrived, and the next identical call means another.

Keys are made from the call and the time in steps of five minutes, so that another process, or this one after a crash,
makes the same; only a repeat across both a crash and such a step gets another key.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

WINDOW_S = 300.0
"""Seconds for which an identical start counts as a repeat."""
_MOST = 4096


@dataclass(slots=True)
class _Start:
    key: str
    at: float
    turn_id: str = ""


class Starts:
    """The starts of the last minutes that nobody has come back to. Bounded: the oldest goes first."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """`clock` answers the time in seconds, the same in every process."""
        self._clock = clock
        self._born = clock()
        self._open: OrderedDict[bytes, _Start] = OrderedDict()
        self._by_turn: dict[str, bytes] = {}
        self._meant: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    @property
    def young(self) -> bool:
        """Whether a process before this one may have made starts that count."""
        return self._clock() - self._born < WINDOW_S

    def key(self, *call: str) -> str:
        """The key for a start that is identified by `call`."""
        print_, now = fingerprint(*call), self._clock()
        found = self._open.get(print_)
        if found is not None and 0 <= now - found.at < WINDOW_S:
            return found.key
        self._forget(print_)
        window, another = self._count(print_, now)
        fresh = _Start(f"mcp-{fingerprint(print_.hex(), str(window), str(another)).hex()[:40]}", now)
        self._open[print_] = fresh
        while len(self._open) > _MOST:
            self._forget(next(iter(self._open)))
        return fresh.key

    def started(self, turn_id: str, *call: str) -> bool:
        """The start was answered with this turn. Whether an earlier call of this process had been too."""
        print_ = fingerprint(*call)
        found = self._open.get(print_)
        if found is None:
            return False
        before, found.turn_id = found.turn_id, turn_id
        self._by_turn[turn_id] = print_
        return before == turn_id

    def named(self, turn_id: str) -> None:
        """Someone knows the turn: an identical start is another one from now on."""
        print_ = self._by_turn.get(turn_id)
        if print_ is None:
            return
        self._forget(print_)
        window, another = self._count(print_, self._clock())
        self._meant[print_] = (window, another + 1)
        while len(self._meant) > _MOST:
            self._meant.popitem(last=False)

    def _count(self, print_: bytes, now: float) -> tuple[int, int]:
        """The window that it is, and how many starts in it were meant to be different ones."""
        window = int(now // WINDOW_S)
        at, count = self._meant.get(print_, (window, 0))
        return window, count if at == window else 0

    def _forget(self, print_: bytes) -> None:
        gone = self._open.pop(print_, None)
        if gone is not None:
            self._by_turn.pop(gone.turn_id, None)


def fingerprint(*parts: str) -> bytes:
    """One name for a list of texts."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()
