"""The seam of memory: knowledge that is searched, facts and preferences that are kept of users."""

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

Mode = Literal["hybrid", "vector", "keyword"]
"""How passages are ranked: by both, by likeness of vectors, by words."""
MAX_PASSAGES: Final = 50
"""Most passages of one search."""
MAX_QUERY: Final = 2000
"""Longest query, in characters."""


class MemoryUnavailable(Exception):
    """Memory cannot be reached now; the message says what is away. Another attempt may succeed."""


class MemoryInvalid(ValueError):
    """What was asked cannot be: it is of the wrong form, or over a limit that the message names."""


class MemoryNotFound(LookupError):
    """There is no such collection, document or fact, for this caller; the message says which."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document that a search found.

    source: the document, by the name under which it was put in; heading: the headings above it, outermost first;
    score: orders the passages of one search, and is not comparable with those of another.
    """

    collection: str
    source: str
    title: str
    heading: str
    text: str
    ordinal: int
    score: float
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection. `owner`: the user whose it is alone; empty: everybody of the tenant."""

    collection: str
    owner: str
    documents: int
    created_at: datetime.datetime


class Knowledge(Protocol):
    """What a tool may ask of knowledge. Every method may raise MemoryUnavailable."""

    async def collections(self, tenant_id: str, user_id: str) -> Sequence[CollectionInfo]:
        """The collections that the user may read: the tenant's, and his own."""
        ...

    async def search(
        self,
        tenant_id: str,
        user_id: str,
        query: str,
        *,
        collections: Sequence[str] = (),
        k: int = 8,
        mode: Mode = "hybrid",
        where: Mapping[str, str] | None = None,
    ) -> list[Passage]:
        """The best passages, best first, from these collections or from all that the user may read.

        Raises MemoryInvalid, MemoryNotFound for a collection that the user may not read.
        """
        ...
