"""Memory as a whole: history, facts and preferences, knowledge; and all that is kept of one user, to show or to erase."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

from kfm_server.memory.knowledge import KnowledgeBase
from kfm_server.memory.preferences import CachedFacts
from kfm_server.ports.history import SessionHistory
from kfm_server.ports.memory import Erasure, Exported, MemoryInvalid

_PAGE = 100


class UserData(Protocol):
    """Something that is kept of users: what it is called, and how it is shown and erased."""

    @property
    def name(self) -> str:
        """The kind of what is kept, as an export names it."""
        ...

    def export(self, tenant_id: str, user_id: str) -> AsyncGenerator[Mapping[str, Any]]:
        """All of it, as JSON objects. Raises MemoryUnavailable."""
        ...

    async def erase(self, tenant_id: str, user_id: str) -> int:
        """Erase it; answers how many there were. Doing it again does nothing. Raises MemoryUnavailable."""
        ...


class OwnKnowledge:
    """The UserData of collections that are a user's alone."""

    name = "documents"

    def __init__(self, knowledge: KnowledgeBase) -> None:
        self._knowledge = knowledge

    async def export(self, tenant_id: str, user_id: str) -> AsyncGenerator[Mapping[str, Any]]:
        """As UserData says: each document with the text of its chunks."""
        for collection in await self._knowledge.owned(tenant_id, user_id):
            after = ""
            while found := await self._knowledge.documents(tenant_id, collection.collection, after, _PAGE):
                for document in found:
                    yield {
                        "collection": collection.collection,
                        "source": document.source,
                        "title": document.title,
                        "metadata": dict(document.metadata),
                        "updated_at": document.updated_at.isoformat(),
                        "chunks": await self._knowledge.text_of(
                            tenant_id, collection.collection, document.source
                        ),
                    }
                after = found[-1].source

    async def erase(self, tenant_id: str, user_id: str) -> int:
        """As UserData says."""
        count = 0
        for collection in await self._knowledge.owned(tenant_id, user_id):
            count += await self._knowledge.drop(tenant_id, collection.collection)
        return count


class MemoryService:
    """What doors may ask of memory. Plain values in and out; errors as ports/memory.py has them."""

    def __init__(
        self,
        history: SessionHistory,
        facts: CachedFacts,
        knowledge: KnowledgeBase,
        others: Sequence[UserData] = (),
    ) -> None:
        """`others`: what else is kept of users."""
        self.history = history
        self.facts = facts
        self.knowledge = knowledge
        self._kept: tuple[UserData, ...] = (facts, OwnKnowledge(knowledge), *others)

    async def export_user(self, tenant_id: str, user_id: str) -> AsyncGenerator[Exported]:
        """All that is kept of the user, kind by kind. Raises MemoryUnavailable, MemoryInvalid."""
        if not user_id:
            raise MemoryInvalid("no user is named")
        for kept in self._kept:
            async for value in kept.export(tenant_id, user_id):
                yield Exported(kept.name, value)

    async def erase_user(self, tenant_id: str, user_id: str) -> Erasure:
        """Erase it; a failure half-way leaves the rest for another call. Raises MemoryUnavailable, MemoryInvalid."""
        if not user_id:
            raise MemoryInvalid("no user is named")
        counts = {kept.name: await kept.erase(tenant_id, user_id) for kept in self._kept}
        return Erasure(tenant_id, user_id, counts)
