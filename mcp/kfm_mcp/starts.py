"""Which idempotency key a start goes under, so that a start whose answer was lost is not made twice.

A client that lost an answer sends the call again as a new request with a new id, perhaps in a new session or from a
new process: of the call only its arguments stay the same. So:

- A key that the caller names stands, and holds for ever: the argument `idempotency_key`, or `_meta` of the same name
  below `kfm/`, or the HTTP header `Idempotency-Key`, in this order.
- Without one, identical arguments from the same client program go under the same key for five minutes, or until
  some call names the turn: then its id, and so the answer, has arrived, and the next identical call means another.
"""

import hashlib
import secrets
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

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` answers seconds."""
        self._clock = clock
        self._open: OrderedDict[bytes, _Start] = OrderedDict()
        self._by_turn: dict[str, bytes] = {}

    def key(self, *call: str) -> str:
        """The key for a start that is identified by `call`."""
        print_ = fingerprint(*call)
        found = self._open.get(print_)
        if found is not None and self._clock() - found.at < WINDOW_S:
            return found.key
        self._forget(print_)
        fresh = _Start(f"mcp-{secrets.token_hex(16)}", self._clock())
        self._open[print_] = fresh
        while len(self._open) > _MOST:
            self._forget(next(iter(self._open)))
        return fresh.key

    def started(self, turn_id: str, *call: str) -> bool:
        """The start was answered with this turn. Whether an earlier call had been answered with it too."""
        print_ = fingerprint(*call)
        found = self._open.get(print_)
        if found is None:
            return False
        again = found.turn_id == turn_id
        found.turn_id = turn_id
        self._by_turn[turn_id] = print_
        return again

    def named(self, turn_id: str) -> None:
        """Someone knows the turn: an identical start is another one from now on."""
        print_ = self._by_turn.get(turn_id)
        if print_ is not None:
            self._forget(print_)

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
