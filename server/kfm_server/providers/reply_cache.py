"""Replies that are kept for a while, for calls that are equal in all that an answer depends on."""

from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any, Final

import orjson

from kfm_server.ports.cache import Cache, CacheInvalid, CacheUnavailable
from kfm_server.ports.models import ModelReply, TokenUsage, ToolUse

NAMESPACE: Final = "replies-1"
"""Of the cache; another number for another form of what is kept."""


class ReplyCache:
    """Keeps replies in a cache, which may be shared with other processes. Without one it keeps nothing."""

    def __init__(self, cache: Cache | None) -> None:
        self._cache = cache

    async def get(self, key: str) -> ModelReply | None:
        """The reply as it was, but for free: no tokens, `cached`, and `cache:` before the provider's id."""
        if self._cache is None:
            return None
        try:
            kept = await self._cache.get(NAMESPACE, _digest(key))
        except CacheUnavailable:
            return None
        if kept is None or not kept.fresh:
            return None
        try:
            reply = _reply(orjson.loads(kept.value))
        except (ValueError, TypeError, LookupError):  # of another release, or of nobody that is known
            return None
        return replace(reply, usage=TokenUsage(), request_id=f"cache:{reply.request_id}", cached=True)

    async def put(self, key: str, reply: ModelReply, seconds: float) -> None:
        """Keep it so long, if it is one that may be given again: an answer that came to its own end."""
        if self._cache is None or reply.finish not in ("stop", "tool_calls"):
            return
        if not (reply.text.strip() or reply.tool_uses):
            return
        try:
            await self._cache.put(NAMESPACE, _digest(key), orjson.dumps(asdict(reply)), seconds)
        except (CacheUnavailable, CacheInvalid, orjson.JSONEncodeError):
            return  # it is no worse an answer for that


def _digest(key: str) -> str:
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _reply(told: dict[str, Any]) -> ModelReply:
    told["usage"] = TokenUsage(**told["usage"])
    told["tool_uses"] = tuple(ToolUse(**use) for use in told["tool_uses"])
    return ModelReply(**told)
