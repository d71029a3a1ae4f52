"""The seam of vector search: vectors of one tenant's collections, and the nearest of them to a query.

A collection belongs to the embedder that filled it first: vectors of two embedders say nothing about each other, so
the store refuses to mix them. Whoever changes the embedder drops the collection's vectors and fills it again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

Vector = Sequence[float]
MAX_DIMS: Final = 4000
"""Most dimensions of an embedder: what HNSW takes of half-precision vectors."""
MAX_FOUND: Final = 1000
"""Most vectors that one search answers."""


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """What made a vector: two vectors may be compared only if these are equal."""

    id: str
    dims: int


@dataclass(frozen=True, slots=True)
class VectorItem:
    """One vector. `id` is unique within its collection; `metadata` is what a search may ask for."""

    id: str
    vector: Vector
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class VectorHit:
    """What a search found. `score` is the cosine similarity, -1 to 1."""

    id: str
    score: float
    metadata: Mapping[str, str]


class VectorsInvalid(ValueError):
    """What was given is no vector of this embedder, or over a limit; the message says which."""


class VectorsUnavailable(Exception):
    """The store cannot be used now: it is away, or what it needs is not installed; the message says which."""


class EmbedderMismatch(Exception):
    """The collection holds vectors of another embedder; the message names both."""

    def __init__(self, collection: str, stored: EmbedderIdentity, given: EmbedderIdentity) -> None:
        super().__init__(
            f"The collection {collection!r} was embedded by {stored.id} ({stored.dims} dimensions), not by"
            f" {given.id} ({given.dims}): embed it again to change."
        )
        self.stored = stored
        self.given = given


class VectorStore(Protocol):
    """Where vectors are kept. Nothing of one tenant is seen, counted, changed or found by a call for another.

    Every method may raise VectorsUnavailable. What a call has acknowledged is durable.
    """

    async def upsert(
        self, tenant_id: str, collection: str, embedder: EmbedderIdentity, items: Sequence[VectorItem]
    ) -> None:
        """Keep the items, all or none, in place of those with their ids.

        Raises EmbedderMismatch; VectorsInvalid for another number of dimensions, or a number that is not finite.
        """
        ...

    async def delete(self, tenant_id: str, collection: str, ids: Sequence[str]) -> int:
        """Forget these; answers how many there were."""
        ...

    async def drop(self, tenant_id: str, collection: str) -> int:
        """Forget the collection, its embedder too; answers how many vectors it had."""
        ...

    async def count(self, tenant_id: str, collection: str) -> int:
        """How many vectors the collection has."""
        ...

    async def embedder(self, tenant_id: str, collection: str) -> EmbedderIdentity | None:
        """What the collection was embedded by; None if it has never held a vector."""
        ...

    async def search(
        self,
        tenant_id: str,
        collection: str,
        embedder: EmbedderIdentity,
        vector: Vector,
        k: int,
        where: Mapping[str, str] | None = None,
    ) -> list[VectorHit]:
        """The nearest `k` whose metadata has all of `where`, best first: always `k` if that many match.

        Raises EmbedderMismatch, VectorsInvalid (k: 1 to MAX_FOUND).
        """
        ...
