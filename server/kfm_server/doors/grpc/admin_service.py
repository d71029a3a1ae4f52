"""AdminService: what the server is, its configuration, and dead letters."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kfm.admin.v1 import admin_service_pb2

from kfm_server.context import ExecutionContext
from kfm_server.doors.grpc.interceptor import Call
from kfm_server.doors.grpc.turn_service import take_key
from kfm_server.doors.grpc.validation import check_text
from kfm_server.ports.sandbox import Confinement

_pb = admin_service_pb2
_DEFAULT_PAGE = 50


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What GetServerInfo answers; `sandboxes`, `more`: what the host can confine, and capabilities that come and go,
    looked at when they are asked for."""

    version: str
    schema_release: str
    capabilities: tuple[str, ...] = ()
    sandboxes: Callable[[], Awaitable[Sequence[Confinement]]] | None = None
    more: Callable[[], Sequence[str]] = tuple


class DeadLetters(Protocol):
    """The desk for messages that a consumer could not take. Raises DeadLetterNotFound, PageTokenInvalid, IdempotencyConflict."""

    async def list(
        self, ctx: ExecutionContext, group: str, page_size: int, page_token: str
    ) -> tuple[list[admin_service_pb2.DeadLetter], str]: ...
    async def get(self, ctx: ExecutionContext, dead_letter_id: str) -> admin_service_pb2.DeadLetter: ...
    async def replay(
        self, ctx: ExecutionContext, dead_letter_id: str, key: str, digest: bytes, rpc: str
    ) -> None: ...
    async def drop(
        self, ctx: ExecutionContext, dead_letter_id: str, key: str, digest: bytes, rpc: str
    ) -> None: ...


class Configuration(Protocol):
    """The settings in force."""

    def show(self) -> admin_service_pb2.GetConfigResponse:
        """All of them, secrets left out."""
        ...

    async def reload(self) -> admin_service_pb2.ReloadConfigResponse:
        """Read them again. Raises ConfigInvalid, and then nothing has changed."""
        ...


class Pools(Protocol):
    """The worker pools as this process sees them."""

    def show(self, pool: str) -> tuple[list[_pb.Worker], list[_pb.Pool]]:
        """Workers that are connected here, and pools that have tools or attempts here; of one pool, if named."""
        ...


class AdminService:
    """The bodies of kfm.admin.v1.AdminService, by the names of its RPCs."""

    SERVICE = "kfm.admin.v1.AdminService"

    def __init__(
        self, info: ServerInfo, dead_letters: DeadLetters, config: Configuration, pools: Pools
    ) -> None:
        """`info` does not change while the server runs."""
        self._pools = pools
        self._config = config
        self._info = info
        self._dead_letters = dead_letters

    async def GetServerInfo(self, call: Call, request: _pb.GetServerInfoRequest) -> _pb.GetServerInfoResponse:
        """What the server is."""
        found = await self._info.sandboxes() if self._info.sandboxes is not None else ()
        able = [f"sandbox.{seen.tier}" for seen in found if seen.able]
        return _pb.GetServerInfoResponse(
            version=self._info.version,
            schema_release=self._info.schema_release,
            capabilities=(*self._info.capabilities, *able, *self._info.more()),
        )

    async def GetConfig(self, call: Call, request: _pb.GetConfigRequest) -> _pb.GetConfigResponse:
        """The settings in force, and where each was set."""
        return self._config.show()

    async def ReloadConfig(self, call: Call, request: _pb.ReloadConfigRequest) -> _pb.ReloadConfigResponse:
        """Read the settings again, and say what changed."""
        return await self._config.reload()

    async def ListWorkers(self, call: Call, request: _pb.ListWorkersRequest) -> _pb.ListWorkersResponse:
        """Who performs steps outside the server."""
        workers, pools = self._pools.show(request.pool)
        return _pb.ListWorkersResponse(workers=workers, pools=pools)

    async def ListDeadLetters(
        self, call: Call, request: _pb.ListDeadLettersRequest
    ) -> _pb.ListDeadLettersResponse:
        """A page, without the bytes."""
        check_text("group", request.group)
        check_text("page_token", request.page_token)
        letters, token = await self._dead_letters.list(
            call.ctx, request.group, request.page_size or _DEFAULT_PAGE, request.page_token
        )
        return _pb.ListDeadLettersResponse(dead_letters=letters, next_page_token=token)

    async def GetDeadLetter(self, call: Call, request: _pb.GetDeadLetterRequest) -> _pb.GetDeadLetterResponse:
        """One, with its bytes."""
        return _pb.GetDeadLetterResponse(
            dead_letter=await self._dead_letters.get(call.ctx, request.dead_letter_id)
        )

    async def ReplayDeadLetter(
        self, call: Call, request: _pb.ReplayDeadLetterRequest
    ) -> _pb.ReplayDeadLetterResponse:
        """Hand it to its consumer again."""
        key, digest = take_key(request)
        await self._dead_letters.replay(call.ctx, request.dead_letter_id, key, digest, "ReplayDeadLetter")
        return _pb.ReplayDeadLetterResponse()

    async def DropDeadLetter(
        self, call: Call, request: _pb.DropDeadLetterRequest
    ) -> _pb.DropDeadLetterResponse:
        """Give it up."""
        key, digest = take_key(request)
        await self._dead_letters.drop(call.ctx, request.dead_letter_id, key, digest, "DropDeadLetter")
        return _pb.DropDeadLetterResponse()
