"""The embedder of a configured model: any provider that answers `embed`."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kfm_server.ports.embedder import EmbedderFailed
from kfm_server.ports.models import Embeddings, ProviderError
from kfm_server.ports.vectors import MAX_DIMS, EmbedderIdentity, Vector

TEXTS_AT_ONCE: Final = 64
"""Most texts of one call of the provider."""


class Embeds(Protocol):
    """What is asked for vectors: a provider, or what stands before one."""

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """A vector for each text. Raises ProviderError."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """A model that embeds. `kind`: its provider's name; `model`: as that provider calls it."""

    provider: Embeds
    kind: str
    model: str

    @property
    def id(self) -> str:
        """What its vectors are of."""
        return f"{self.kind}:{self.model}"


class ProviderEmbedder:
    """The port Embedder over a model. Its dimensions are what the first reply has."""

    def __init__(self, model: Callable[[], EmbeddingModel]) -> None:
        """`model`: the one that is configured now."""
        self._model = model
        self._known: dict[str, EmbedderIdentity] = {}

    async def identity(self) -> EmbedderIdentity:
        """As the port says."""
        model = self._model()
        if model.id not in self._known:
            await self._call(model, ["dimensions"])
        return self._known[model.id]

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """As the port says."""
        model, found = self._model(), list[Vector]()
        for at in range(0, len(texts), TEXTS_AT_ONCE):
            found += await self._call(model, texts[at : at + TEXTS_AT_ONCE])
        return found

    async def _call(self, model: EmbeddingModel, texts: Sequence[str]) -> list[Vector]:
        try:
            answer = await model.provider.embed(model.model, texts)
        except ProviderError as error:
            raise EmbedderFailed(f"{model.id}: {error}", retryable=error.retryable) from error
        identity = self._known.setdefault(model.id, EmbedderIdentity(model.id, len(answer.vectors[0])))
        if not 1 <= identity.dims <= MAX_DIMS:
            del self._known[model.id]
            raise EmbedderFailed(
                f"{model.id} answers {identity.dims} dimensions; 1 to max_dims={MAX_DIMS} are kept."
            )
        if any(len(vector) != identity.dims for vector in answer.vectors):
            raise EmbedderFailed(
                f"{model.id} answers vectors that are not all of {identity.dims} dimensions."
            )
        return [_unit(vector) for vector in answer.vectors]


def _unit(vector: Vector) -> Vector:
    length = math.hypot(*vector)
    return [x / length for x in vector] if length and math.isfinite(length) else vector
