"""The embedder of a configured model: any provider that answers `embed`."""

import math
from collections.abc import Sequence
from typing import Final

from kfm_server.ports.embedder import EmbedderFailed
from kfm_server.ports.models import ModelProvider, ProviderError
from kfm_server.ports.vectors import MAX_DIMS, EmbedderIdentity, Vector

TEXTS_AT_ONCE: Final = 64
"""Most texts of one call of the provider."""


class ProviderEmbedder:
    """The port Embedder over a model. Its identity names provider and model; its dimensions are what the first reply has."""

    def __init__(self, provider: ModelProvider, name: str, model: str) -> None:
        """`name`: what kind of provider it is; `model`: as that provider calls it."""
        self._provider = provider
        self._model = model
        self._id = f"{name}:{model}"
        self._identity: EmbedderIdentity | None = None

    async def identity(self) -> EmbedderIdentity:
        """As the port says."""
        if self._identity is None:
            await self._call(["dimensions"])
        assert self._identity is not None
        return self._identity

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """As the port says."""
        found: list[Vector] = []
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            found += await self._call(texts[at : at + TEXTS_AT_ONCE])
        return found

    async def _call(self, texts: Sequence[str]) -> list[Vector]:
        try:
            answer = await self._provider.embed(self._model, texts)
        except ProviderError as error:
            raise EmbedderFailed(f"{self._id}: {error}", retryable=error.retryable) from error
        identity = self._identity or EmbedderIdentity(self._id, len(answer.vectors[0]))
        if not 1 <= identity.dims <= MAX_DIMS:
            raise EmbedderFailed(
                f"{self._id} answers {identity.dims} dimensions; 1 to max_dims={MAX_DIMS} are kept."
            )
        if any(len(vector) != identity.dims for vector in answer.vectors):
            raise EmbedderFailed(
                f"{self._id} answers vectors that are not all of {identity.dims} dimensions."
            )
        self._identity = identity
        return [_unit(vector) for vector in answer.vectors]


def _unit(vector: Vector) -> Vector:
    length = math.hypot(*vector)
    return [x / length for x in vector] if length and math.isfinite(length) else vector
