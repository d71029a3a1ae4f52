"""`kfm.memory`: facts and preferences of users, and knowledge that is searched."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from xenocomm._gen.types import (
    Collection,
    Document,
    DocumentChange,
    ExportUserResponse,
    Fact,
    FactKind,
    Passage,
    RankingMode,
)
from xenocomm.transport import Transport


class Memory:
    """What agents know beside what was said. An empty `user` is the caller."""

    def __init__(self, transport: Transport) -> None:
        """Made by Client."""
        self._transport = transport

    async def remember(
        self, key: str, value: str, *, kind: FactKind = FactKind.FACT, source: str = "", user: str = ""
    ) -> Fact:
        """Keep a fact or a preference, in place of what stood under its key."""
        answer = await self._call("Remember", user_id=user, kind=kind, key=key, value=value, source=source)
        return Fact.from_pb(answer.fact)

    async def facts(self, *, kind: FactKind = FactKind.UNSPECIFIED, user: str = "") -> Sequence[Fact]:
        """All that is known of a user, by kind and key."""
        found: list[Fact] = []
        token = ""
        while True:
            page = await self._call("ListFacts", user_id=user, kind=kind, page_token=token)
            found += map(Fact.from_pb, page.facts)
            token = page.next_page_token
            if not token:
                return found

    async def forget(self, key: str, *, kind: FactKind = FactKind.FACT, user: str = "") -> bool:
        """Forget one; answers whether there was one."""
        return (await self._call("Forget", user_id=user, kind=kind, key=key)).found

    async def put_document(
        self,
        collection: str,
        source: str,
        body: bytes,
        *,
        media_type: str = "",
        title: str = "",
        owner: str = "",
    ) -> DocumentChange:
        """Have a document in a collection, which is made if there is none: Markdown, text, HTML or PDF."""
        answer = await self._call(
            "PutDocument",
            collection=collection,
            source=source,
            body=body,
            media_type=media_type,
            title=title,
            owner=owner,
        )
        return DocumentChange(answer.change)

    async def documents(self, collection: str) -> Sequence[Document]:
        """The documents of a collection, by source."""
        found: list[Document] = []
        token = ""
        while True:
            page = await self._call("ListDocuments", collection=collection, page_token=token)
            found += map(Document.from_pb, page.documents)
            token = page.next_page_token
            if not token:
                return found

    async def remove_document(self, collection: str, source: str) -> bool:
        """Forget a document; answers whether there was one."""
        return (await self._call("RemoveDocument", collection=collection, source=source)).found

    async def collections(self, *, user: str = "") -> Sequence[Collection]:
        """The collections that a user may read, by name."""
        return [
            Collection.from_pb(c) for c in (await self._call("ListCollections", user_id=user)).collections
        ]

    async def drop_collection(self, collection: str) -> int:
        """Forget a collection; answers how many documents it had."""
        return (await self._call("DropCollection", collection=collection)).documents

    async def search(
        self,
        query: str,
        *,
        collections: Sequence[str] = (),
        limit: int = 8,
        mode: RankingMode = RankingMode.HYBRID,
        user: str = "",
    ) -> Sequence[Passage]:
        """The passages that answer a query best, from these collections or from all that the user may read."""
        answer = await self._call(
            "SearchKnowledge",
            query=query,
            collections=list(collections),
            limit=limit,
            mode=mode,
            user_id=user,
        )
        return [Passage.from_pb(p) for p in answer.passages]

    async def export_user(self, user: str) -> AsyncGenerator[ExportUserResponse]:
        """All that is kept of a user outside of turns, one thing after the other."""
        stream = self._transport.stream("MemoryService.ExportUser", {"user_id": user})
        try:
            while (found := await stream.read()) is not None:
                yield ExportUserResponse.from_pb(found)
        finally:
            stream.cancel()

    async def erase_user(self, user: str) -> dict[str, int]:
        """Erase all that is kept of a user outside of turns; answers how many of each sort."""
        return dict((await self._call("EraseUser", user_id=user)).erased)

    async def _call(self, method: str, **fields: Any) -> Any:
        return await self._transport.call(f"MemoryService.{method}", fields)
