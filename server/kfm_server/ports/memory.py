"""The seam of memory: knowledge that is searched, facts and preferences that are kept of users."""

import datetime
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from kfm_server.models import Personality

Mode = Literal["hybrid", "vector", "keyword"]
"""How passages are ranked: by both, by likeness of vectors, by words."""
Kind = Literal["fact", "preference"]
"""What sort of thing is known of a user."""
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


@dataclass(frozen=True, slots=True)
class Fact:
    """What is known of a user. `source`: what it was learned from, such as a turn's id or `user`."""

    fact_id: str
    user_id: str
    kind: Kind
    key: str
    value: str
    source: str
    created_at: datetime.datetime
    updated_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A document that goes in. `source` names it within its collection; media_type and title: empty is found out."""

    source: str
    body: bytes
    media_type: str = ""
    title: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What an ingestion did, so far or in the end. Counts are of documents; `chunks` were embedded."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    chunks: int = 0
    bytes: int = 0
    failures: tuple[tuple[str, str], ...] = ()
    """Source and reason of the first of those that failed."""

    @property
    def seen(self) -> int:
        """Documents that were looked at."""
        return self.added + self.changed + self.unchanged + self.failed


Told = Callable[[IngestReport, str], None]
"""Is told what was done so far, and the document that was done last."""


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it is known. `digest`: of what it was made from."""

    source: str
    title: str
    media_type: str
    digest: str
    bytes: int
    chunks: int
    updated_at: datetime.datetime
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Exported:
    """One thing that is kept of a user. `kind`: the name of its UserData."""

    kind: str
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Erasure:
    """What was erased of a user: how many of each kind. The proof, for the audit trail."""

    tenant_id: str
    user_id: str
    counts: Mapping[str, int]


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
        also: Sequence[str] = (),
    ) -> list[Passage]:
        """The best passages, best first, from these collections or from all that the user may read.

        `also`: further owners whose collections are read, such as the turn's pack.
        Raises MemoryInvalid, MemoryNotFound for a collection that the user may not read.
        """
        ...


class Library(Knowledge, Protocol):
    """Knowledge, and what fills it. Every method may raise MemoryUnavailable, MemoryInvalid."""

    async def ingest(
        self,
        tenant_id: str,
        collection: str,
        documents: Iterable[SourceDocument] | AsyncIterable[SourceDocument],
        *,
        owner: str = "",
        remove_missing: bool = False,
        told: Told | None = None,
    ) -> IngestReport:
        """Have these documents in the collection, which is made if there is none.

        Unchanged ones are left as they are, changed ones replaced at once and whole; with `remove_missing`, others go.
        """
        ...

    async def remove(self, tenant_id: str, collection: str, source: str) -> bool:
        """Forget a document; answers whether there was one."""
        ...

    async def drop(self, tenant_id: str, collection: str) -> int:
        """Forget a collection; answers how many documents it had."""
        ...

    async def documents(
        self, tenant_id: str, collection: str, after: str = "", limit: int = 100
    ) -> Sequence[StoredDocument]:
        """The documents of a collection, by source, from behind `after`."""
        ...


class PackLibrary(Protocol):
    """Knowledge that personality packs bring."""

    async def owner_of(self, tenant_id: str, personality: Personality) -> str:
        """Who owns the collection of what its pack brings, which is there when this returns; empty if it brings nothing.

        Raises MemoryUnavailable.
        """
        ...


@dataclass(frozen=True, slots=True)
class Preference:
    """What a user prefers: `units` is `metric`."""

    key: str
    value: str


class Preferences(Protocol):
    """What prompts are told of a user."""

    async def preferences(self, tenant_id: str, user_id: str) -> Sequence[Preference]:
        """By key. Where memory cannot be reached, what was known last, or none: a turn goes on without."""
        ...


class UserFacts(Protocol):
    """Facts and preferences, by tenant and user. Every method may raise MemoryUnavailable, MemoryInvalid."""

    async def remember(
        self, tenant_id: str, user_id: str, kind: Kind, key: str, value: str, source: str
    ) -> Fact:
        """Keep it, in place of what was kept of this kind under this key. An empty key of a fact is a new one."""
        ...

    async def known(
        self,
        tenant_id: str,
        user_id: str,
        kind: Kind | Literal[""] = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 100,
    ) -> Sequence[Fact]:
        """What is known of the user, by kind and key, from behind `after`."""
        ...

    async def forget(self, tenant_id: str, user_id: str, kind: Kind, key: str) -> bool:
        """Forget one; answers whether there was one."""
        ...


class Memory(Protocol):
    """What doors may ask of memory."""

    @property
    def facts(self) -> UserFacts:
        """Of users."""
        ...

    @property
    def knowledge(self) -> Library:
        """Of tenants, and of users alone."""
        ...

    def export_user(self, tenant_id: str, user_id: str) -> AsyncGenerator[Exported]:
        """All that is kept of the user, kind by kind. Raises MemoryUnavailable, MemoryInvalid."""
        ...

    async def erase_user(self, tenant_id: str, user_id: str) -> Erasure:
        """Erase it; a failure half-way leaves the rest for another call. Raises MemoryUnavailable, MemoryInvalid."""
        ...
