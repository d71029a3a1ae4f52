"""What stands before a model's provider: the breaker of its endpoint and the cache of its replies."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, contextmanager

from kfm_server import metrics
from kfm_server.breaker import Breaker, BreakerOpen, Outcome
from kfm_server.models import ModelSpec
from kfm_server.ports.models import (
    Embeddings,
    ModelDelta,
    ModelProvider,
    ModelReply,
    ModelRequest,
    ProviderError,
    digest_of,
    never,
)
from kfm_server.providers import errors
from kfm_server.providers.reply_cache import ReplyCache


class GuardedProvider:
    """A provider as one model's calls meet it. See ports.models.ModelProvider.

    A call that the breaker refuses was not made: it raises `errors.not_asked`. What counts against the endpoint is what
    it alone is to blame for: no answer, 5xx, a cut or silent stream, and the end of the caller's time
    (`ModelRequest.expired`); never a refusal of the call itself, and never a caller that went away.
    """

    def __init__(self, inner: ModelProvider, spec: ModelSpec, breaker: Breaker, cache: ReplyCache) -> None:
        self.inner, self.breaker = inner, breaker
        self._spec, self._cache = spec, cache
        self._last = ""
        """How this model's last failed call failed."""

    async def generate(self, request: ModelRequest) -> ModelReply:
        """One reply, whole. Raises ProviderError."""
        key = self._key(request)
        if (kept := await self._kept(key)) is not None:
            return kept
        with self._call(request):
            reply = await self.inner.generate(request)
        await self._keep(key, reply)
        return reply

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        """The reply in pieces, then whole; one from the cache is one piece. Raises ProviderError."""
        key = self._key(request)
        if (kept := await self._kept(key)) is not None:
            if kept.text:
                yield ModelDelta("text", kept.text)
            yield kept
            return
        with self._call(request):
            async with aclosing(self.inner.stream(request)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, ModelReply):
                        await self._keep(key, piece)
                    yield piece

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """A vector for each text. Raises ProviderError."""
        with self._call(None):
            return await self.inner.embed(model, texts)

    async def close(self) -> None:
        """Nothing: the provider may be another model's, too."""

    @contextmanager
    def _call(self, request: ModelRequest | None) -> Generator[None]:
        try:
            permit = self.breaker.enter()
        except BreakerOpen as refused:
            raise errors.not_asked(
                self._spec.name, self.breaker.failures, refused.seconds, self._last
            ) from None
        outcome: Outcome = "left"
        expired = request.expired if request is not None else never
        try:
            yield
            outcome = "answered"
        except ProviderError as error:
            # Whatever else it says, it is there and answers.
            outcome = "failed" if error.reason == errors.UNAVAILABLE else "answered"
            self._last = error.message
            raise
        except asyncio.CancelledError:
            outcome = "failed" if expired() else "left"
            raise
        finally:
            self.breaker.leave(permit, outcome)

    def _key(self, request: ModelRequest) -> str:
        """Under which its reply is kept; empty if it is not."""
        if not self._spec.cache_seconds:
            return ""
        spec = self._spec
        return "\n".join((spec.name, spec.provider, spec.base_url, request.tenant, digest_of(request)))

    async def _kept(self, key: str) -> ModelReply | None:
        if not key:
            return None
        kept = await self._cache.get(key)
        metrics.MODEL_CACHE.labels(self._spec.name, "miss" if kept is None else "hit").inc()
        return kept

    async def _keep(self, key: str, reply: ModelReply) -> None:
        if key:
            await self._cache.put(key, reply, self._spec.cache_seconds)
