"""MemoryService: facts of users and knowledge, from messages to the port and back. What changes is announced for the audit."""

import base64
import binascii
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final, TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from kfm.catalogue.errors import InvalidArgument, Unavailable
from kfm.catalogue.errors import MemoryNotFound as NothingFound
from kfm.event.v1.system_events_pb2 import MemoryChangedEvent
from kfm.memory.v1 import memory_service_pb2 as pb

from kfm_server.canonical import canonical_json
from kfm_server.doors.grpc.interceptor import Call
from kfm_server.doors.grpc.validation import check_text
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.ports.memory import (
    CollectionInfo,
    Fact,
    Kind,
    Memory,
    MemoryInvalid,
    MemoryNotFound,
    MemoryUnavailable,
    Mode,
    Passage,
    SourceDocument,
    StoredDocument,
)

T = TypeVar("T")
Announce = Callable[[Message], Awaitable[None]]
_KINDS: Final[dict[int, Kind]] = {pb.FACT_KIND_FACT: "fact", pb.FACT_KIND_PREFERENCE: "preference"}
_KIND_VALUES: Final[dict[Kind, pb.FactKind]] = {
    "fact": pb.FACT_KIND_FACT,
    "preference": pb.FACT_KIND_PREFERENCE,
}
_MODES: Final[dict[int, Mode]] = {pb.RANKING_MODE_VECTOR: "vector", pb.RANKING_MODE_KEYWORD: "keyword"}
_PAGE = 100


class MemoryService:
    """The bodies of kfm.memory.v1.MemoryService, by the names of its RPCs."""

    SERVICE = "kfm.memory.v1.MemoryService"

    def __init__(self, memory: Memory, announce: Announce) -> None:
        """`announce`: records a system event, before the change is answered."""
        self._memory = memory
        self._announce = announce

    async def Remember(self, call: Call, request: pb.RememberRequest) -> pb.RememberResponse:
        """Kept when this returns."""
        _check_texts(request)
        user = _user(call, request.user_id)
        fact = await _told(
            self._memory.facts.remember(
                call.ctx.tenant_id, user, _KINDS[request.kind], request.key, request.value, request.source
            )
        )
        await self._changed(call, "remember", f"{user}/{fact.key}")
        return pb.RememberResponse(fact=_fact(fact))

    async def ListFacts(self, call: Call, request: pb.ListFactsRequest) -> pb.ListFactsResponse:
        """A page, by kind and key."""
        _check_texts(request)
        after = _after(request.page_token, 2)
        limit = request.page_size or _PAGE
        found = await _told(
            self._memory.facts.known(
                call.ctx.tenant_id,
                _user(call, request.user_id),
                _KINDS.get(request.kind, ""),
                (after[0], after[1]),
                limit,
            )
        )
        more = _token(found[-1].kind, found[-1].key) if len(found) == limit else ""
        return pb.ListFactsResponse(facts=map(_fact, found), next_page_token=more)

    async def Forget(self, call: Call, request: pb.ForgetRequest) -> pb.ForgetResponse:
        """Gone when this returns."""
        _check_texts(request)
        user = _user(call, request.user_id)
        found = await _told(
            self._memory.facts.forget(call.ctx.tenant_id, user, _KINDS[request.kind], request.key)
        )
        if found:
            await self._changed(call, "forget", f"{user}/{request.key}")
        return pb.ForgetResponse(found=found)

    async def PutDocument(self, call: Call, request: pb.PutDocumentRequest) -> pb.PutDocumentResponse:
        """Found by searches when this returns."""
        _check_texts(request)
        document = SourceDocument(request.source, request.body, request.media_type, request.title)
        report = await _told(
            self._memory.knowledge.ingest(
                call.ctx.tenant_id, request.collection, [document], owner=request.owner
            )
        )
        if report.failures:
            raise InvalidArgument(
                report.failures[0][1][:1000], violations=[("body", "document", report.failures[0][1])]
            )
        if report.unchanged:
            return pb.PutDocumentResponse(change=pb.DOCUMENT_CHANGE_UNCHANGED)
        await self._changed(call, "put", f"{request.collection}/{request.source}", chunks=report.chunks)
        change = pb.DOCUMENT_CHANGE_ADDED if report.added else pb.DOCUMENT_CHANGE_CHANGED
        return pb.PutDocumentResponse(change=change, chunks=report.chunks)

    async def ListDocuments(self, call: Call, request: pb.ListDocumentsRequest) -> pb.ListDocumentsResponse:
        """A page, by source."""
        _check_texts(request)
        (after,) = _after(request.page_token, 1)
        limit = request.page_size or _PAGE
        found = await _told(
            self._memory.knowledge.documents(call.ctx.tenant_id, request.collection, after, limit)
        )
        more = _token(found[-1].source) if len(found) == limit else ""
        return pb.ListDocumentsResponse(documents=map(_document, found), next_page_token=more)

    async def RemoveDocument(
        self, call: Call, request: pb.RemoveDocumentRequest
    ) -> pb.RemoveDocumentResponse:
        """Gone when this returns."""
        _check_texts(request)
        found = await _told(
            self._memory.knowledge.remove(call.ctx.tenant_id, request.collection, request.source)
        )
        if found:
            await self._changed(call, "remove", f"{request.collection}/{request.source}")
        return pb.RemoveDocumentResponse(found=found)

    async def ListCollections(
        self, call: Call, request: pb.ListCollectionsRequest
    ) -> pb.ListCollectionsResponse:
        """Those that the user may read, by name."""
        _check_texts(request)
        found = await _told(
            self._memory.knowledge.collections(call.ctx.tenant_id, _user(call, request.user_id))
        )
        return pb.ListCollectionsResponse(collections=map(_collection, found))

    async def DropCollection(
        self, call: Call, request: pb.DropCollectionRequest
    ) -> pb.DropCollectionResponse:
        """Gone when this returns."""
        _check_texts(request)
        count = await _told(self._memory.knowledge.drop(call.ctx.tenant_id, request.collection))
        if count:
            await self._changed(call, "drop", request.collection, documents=count)
        return pb.DropCollectionResponse(documents=count)

    async def SearchKnowledge(
        self, call: Call, request: pb.SearchKnowledgeRequest
    ) -> pb.SearchKnowledgeResponse:
        """The best first."""
        _check_texts(request)
        found = await _told(
            self._memory.knowledge.search(
                call.ctx.tenant_id,
                _user(call, request.user_id),
                request.query,
                collections=tuple(request.collections),
                k=request.limit or 8,
                mode=_MODES.get(request.mode, "hybrid"),
            )
        )
        return pb.SearchKnowledgeResponse(passages=map(_passage, found))

    async def ExportUser(
        self, call: Call, request: pb.ExportUserRequest
    ) -> AsyncGenerator[pb.ExportUserResponse, None]:
        """One thing after the other."""
        _check_texts(request)
        try:
            async for found in self._memory.export_user(call.ctx.tenant_id, request.user_id):
                yield pb.ExportUserResponse(kind=found.kind, value_json=canonical_json(dict(found.value)))
        except _FAILURES as error:
            raise _typed(error) from None

    async def EraseUser(self, call: Call, request: pb.EraseUserRequest) -> pb.EraseUserResponse:
        """Erased, and recorded, when this returns."""
        _check_texts(request)
        done = await _told(self._memory.erase_user(call.ctx.tenant_id, request.user_id))
        await self._changed(call, "erase", request.user_id, **done.counts)
        return pb.EraseUserResponse(erased=done.counts)

    async def _changed(self, call: Call, action: str, resource: str, **counts: int) -> None:
        event = MemoryChangedEvent(
            principal=call.ctx.principal, action=action, resource=resource, counts=counts
        )
        try:
            await self._announce(event)
        except JournalUnavailable:
            raise Unavailable(
                "It is done, and could not be recorded: do it again.", retry_after_ms=1000
            ) from None


_FAILURES = (MemoryInvalid, MemoryNotFound, MemoryUnavailable)


async def _told(work: Awaitable[T]) -> T:
    """The result; the port's failures as the errors of the schema."""
    try:
        return await work
    except _FAILURES as error:
        raise _typed(error) from None


def _typed(error: Exception) -> Exception:
    if isinstance(error, MemoryUnavailable):
        return Unavailable(retry_after_ms=1000)
    if isinstance(error, MemoryNotFound):
        return NothingFound(str(error))
    return InvalidArgument(str(error), violations=[("", "memory", str(error))])


def _check_texts(request: Message) -> None:
    """Refuse NUL in any of its texts. InvalidArgument."""
    for field, value in request.ListFields():
        if isinstance(value, str):
            check_text(field.name, value)


def _user(call: Call, user_id: str) -> str:
    return user_id or call.ctx.principal


def _token(*parts: str) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


def _after(token: str, count: int) -> Sequence[str]:
    if not token:
        return [""] * count
    try:
        found = json.loads(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error):
        found = None
    if not isinstance(found, list) or len(found) != count or not all(isinstance(p, str) for p in found):
        raise InvalidArgument(
            "page_token: is none that a page before ended with",
            violations=[("page_token", "page_token", "is none that a page before ended with")],
        )
    return found


def _time(at: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def _fact(fact: Fact) -> pb.Fact:
    return pb.Fact(
        kind=_KIND_VALUES[fact.kind],
        key=fact.key,
        value=fact.value,
        source=fact.source,
        created_at=_time(fact.created_at),
        updated_at=_time(fact.updated_at),
    )


def _collection(found: CollectionInfo) -> pb.Collection:
    return pb.Collection(
        collection=found.collection,
        owner=found.owner,
        documents=found.documents,
        created_at=_time(found.created_at),
    )


def _document(found: StoredDocument) -> pb.Document:
    return pb.Document(
        source=found.source,
        title=found.title,
        media_type=found.media_type,
        digest=found.digest,
        bytes=found.bytes,
        chunks=found.chunks,
        updated_at=_time(found.updated_at),
    )


def _passage(found: Passage) -> pb.Passage:
    return pb.Passage(
        collection=found.collection,
        source=found.source,
        title=found.title,
        heading=found.heading,
        text=found.text,
        ordinal=found.ordinal,
        score=found.score,
    )
