"""Which idempotency key a start goes under, so that a start whose answer was lost is not made twice.

A client that lost an answer sends the call again as a new request with a new id: of the call only its arguments stay
the same. But another client may mean another turn with the same arguments. So:

- A key that the caller names stands, and holds for ever: the argument `idempotency_key`, or `kfm/idempotency_key` in
  `_meta`, or the HTTP header `Idempotency-Key`, in this order.
- Without one, identical calls of one client go under the same key until its window has passed or some call names the
  turn: then its id, and so the answer, has arrived, and the next identical call means another. The answer to a repeat
  says that it is one.

Who counts as one client: over standard input and output, the host of this process; over HTTP 2025-11-25, the session;
over HTTP 2026-07-28, which has none, the same program at the same address with the same token. Keys are random and kept
in memory: another process, or this one after a crash, knows none of them. What must hold longer needs a named key.
"""

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

SURE_WINDOW_S = 300.0
"""Seconds for which an identical start counts as a repeat, of a client that is surely the same."""
LIKELY_WINDOW_S = 60.0
"""The same for a client that only looks the same."""
_MOST = 4096


@dataclass(frozen=True, slots=True)
class Caller:
    """One client, as far as clients can be told apart, and the seconds for which its identical starts are repeats."""

    identity: tuple[str, ...]
    window_s: float


@dataclass(slots=True)
class _Start:
    key: str
    until: float
    turn_id: str = ""


class Starts:
    """The starts of the last minutes that nobody has come back to. Bounded: the oldest goes first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` answers the time in seconds."""
        self._clock = clock
        self._open: OrderedDict[bytes, _Start] = OrderedDict()
        self._by_turn: dict[str, bytes] = {}

    def key(self, caller: Caller, call: str) -> tuple[str, bool]:
        """The key for a start, and whether an identical one has it already."""
        print_, now = fingerprint(call, *caller.identity), self._clock()
        found = self._open.get(print_)
        if found is not None and now < found.until:
            return found.key, True
        self._forget(print_)
        fresh = _Start(f"mcp-{secrets.token_hex(20)}", now + caller.window_s)
        self._open[print_] = fresh
        while len(self._open) > _MOST:
            self._forget(next(iter(self._open)))
        return fresh.key, False

    def started(self, turn_id: str, caller: Caller, call: str) -> None:
        """The start was answered with this turn."""
        print_ = fingerprint(call, *caller.identity)
        if (found := self._open.get(print_)) is not None:
            found.turn_id = turn_id
            self._by_turn[turn_id] = print_

    def refused(self, caller: Caller, call: str) -> None:
        """The start was refused: no turn goes under its key."""
        self._forget(fingerprint(call, *caller.identity))

    def named(self, turn_id: str) -> None:
        """Someone knows the turn: an identical start is another one from now on."""
        if (print_ := self._by_turn.get(turn_id)) is not None:
            self._forget(print_)

    def _forget(self, print_: bytes) -> None:
        gone = self._open.pop(print_, None)
        if gone is not None:
            self._by_turn.pop(gone.turn_id, None)


def caller(context: ServerRequestContext[Any, Any]) -> Caller:
    """Who makes this call."""
    request = context.request
    if request is None:
        return Caller(("stdio",), SURE_WINDOW_S)
    session = request.headers.get(MCP_SESSION_ID_HEADER, "")
    if session and context.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        return Caller(("session", session), SURE_WINDOW_S)
    said = context.session.client_params
    program = (said.client_info.name, said.client_info.version) if said is not None else ("", "")
    address = request.client.host if request.client is not None else ""
    return Caller(("peer", *program, address, request.headers.get("authorization", "")), LIKELY_WINDOW_S)


def fingerprint(*parts: str) -> bytes:
    """One name for a list of texts."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()
