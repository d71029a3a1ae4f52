"""Replies kept in memory, for calls that are equal in all that an answer depends on."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from kfm_server.ports.models import ModelReply, TokenUsage, reply_bytes

MAX_ENTRIES: Final = 4_096
"""Most replies kept; the one that was asked for longest ago goes."""
MAX_BYTES: Final = 64 * 1024 * 1024
"""Most that they take together, in bytes of their texts; one larger than a sixteenth of that is not kept."""


@dataclass(frozen=True, slots=True)
class _Kept:
    reply: ModelReply
    size: int
    until: float


class ReplyCache:
    """Bounded in number and in bytes. `now` tells seconds."""

    def __init__(
        self, now: Callable[[], float], *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._now = now
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> ModelReply | None:
        """The reply as it was, but for free: no tokens, `cached`, and `cache:` before the provider's id."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= self._now():
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return replace(
            kept.reply, usage=TokenUsage(), request_id=f"cache:{kept.reply.request_id}", cached=True
        )

    def put(self, key: str, reply: ModelReply, seconds: float) -> None:
        """Keep it so long, if it is one that may be given again: an answer that came to its own end."""
        if reply.finish not in ("stop", "tool_calls") or not (reply.text.strip() or reply.tool_uses):
            return
        size = reply_bytes(reply)
        if size * 16 > self._max_bytes:
            return
        if key in self._kept:
            self._drop(key)
        self._kept[key] = _Kept(reply, size, self._now() + seconds)
        self._bytes += size
        while len(self._kept) > self._max_entries or self._bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        self._bytes -= self._kept.pop(key).size
