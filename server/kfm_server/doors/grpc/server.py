"""The gRPC door: opens, serves, drains, closes."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from kfm.catalogue.errors import Unimplemented
from kfm.catalogue.methods import METHODS

from kfm_server.doors.binding import check_bind, join_address, split_address
from kfm_server.doors.grpc.admin_service import AdminService, Configuration, DeadLetters, ServerInfo
from kfm_server.doors.grpc.drain import Drain
from kfm_server.doors.grpc.event_service import Events, EventService
from kfm_server.doors.grpc.health import Health
from kfm_server.doors.grpc.interceptor import AnyHandler, Call, Edge, Router, routes
from kfm_server.doors.grpc.limits import Gate, Limits
from kfm_server.doors.grpc.memory_service import MemoryService
from kfm_server.doors.grpc.personality_service import PersonalityService
from kfm_server.doors.grpc.provider_service import ProviderService
from kfm_server.doors.grpc.reflection import Reflection
from kfm_server.doors.grpc.session_service import SessionService
from kfm_server.doors.grpc.turn_service import Turns, TurnService
from kfm_server.doors.grpc.worker_service import Tools as WorkerTools
from kfm_server.doors.grpc.worker_service import WorkerService
from kfm_server.ports.history import SessionHistory
from kfm_server.ports.tracing import Tracing
from kfm_server.runtime.pools.hub import WorkerPools

_FOR_CLIENTS = (TurnService, SessionService, EventService, PersonalityService, MemoryService, ProviderService)


class BindFailed(OSError):
    """The address could not be taken."""


class GrpcDoor:
    """One listening gRPC server. `bind`, `start`, then `drain` and `stop`, each once."""

    def __init__(
        self,
        *,
        address: str,
        turns: Turns,
        history: SessionHistory,
        events: Events,
        personalities: PersonalityService,
        memory: MemoryService,
        models: ProviderService,
        dead_letters: DeadLetters,
        config: Configuration,
        pools: WorkerPools,
        pool_tools: WorkerTools,
        info: ServerInfo,
        health: Health,
        image: bytes,
        token: str = "",
        limits: Limits | None = None,
        tracing: Tracing | None = None,
        clients: bool = True,
    ) -> None:
        """`image` is the contract's FileDescriptorSet with source information. BindRefused beyond loopback without a token.

        Not for `clients`: turns, sessions, events, personalities, memory and models are told to other processes only.
        """
        check_bind(address, token)
        self._address = address
        self._health = health
        self._limits = limits or Limits()
        self.gate = Gate(self._limits)
        self._drain = Drain()
        self._edge = Edge(self._limits, self.gate, token, tracing)
        services = (
            TurnService(turns, self._drain),
            SessionService(history),
            EventService(events, self._drain),
            personalities,
            memory,
            models,
            AdminService(info, dead_letters, config, pools),
            WorkerService(
                pools.connections,
                pool_tools,
                version=info.version,
                schema_release=info.schema_release,
                max_message_bytes=self._limits.max_message_bytes,
            ),
        )
        self._services = [
            s if clients or not isinstance(s, _FOR_CLIENTS) else _ForProcesses(s) for s in services
        ]
        self._reflection = Reflection(image)
        self._server: grpc.aio.Server | None = None

    def bind(self) -> str:
        """Take the address, and return it (port 0 becomes a real one). BindFailed if another has it. Callers wait."""
        server = grpc.aio.server(options=self._limits.options())
        handlers = routes(self._edge, METHODS, self._services)
        handlers |= self._standard(self._reflection.handlers())
        handlers |= self._standard(_health_handlers(self._health))
        server.add_generic_rpc_handlers((Router(self._edge, handlers),))
        host, port = split_address(self._address)
        _try_to_bind(self._address, host, port)
        try:
            bound = server.add_insecure_port(join_address(host, port))
        except RuntimeError as error:
            raise BindFailed(f"gRPC cannot listen on {self._address}: {error}") from error
        self._server = server
        return join_address(host, bound)

    async def start(self) -> None:
        """Serve those who call."""
        assert self._server is not None, "bind comes first"
        # A cancelled stream is not news; the library would log each as an error.
        logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
        await self._health.start()
        await self._server.start()

    async def drain(self, grace_s: float) -> None:
        """Refuse new work, ask watchers to come back, let calls at work finish for `grace_s` seconds."""
        self.gate.draining = True
        await self._health.stop()
        self._drain.begin()
        try:
            async with asyncio.timeout(grace_s):
                await self.gate.empty()
        except TimeoutError:
            return

    async def stop(self, grace_s: float = 0.5) -> None:
        """Close the port; what is still open is cut after `grace_s` seconds."""
        if self._server is not None:
            await self._server.stop(grace_s)

    def _standard(self, handlers: dict[str, AnyHandler]) -> dict[str, AnyHandler]:
        return {path: self._edge.guard(path, handler) for path, handler in handlers.items()}


def _try_to_bind(address: str, host: str, port: int) -> None:
    """Raises BindFailed for an address that cannot be had: gRPC itself would write to stderr and not say why."""
    why = "it is not an address of this machine"
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise BindFailed(f"gRPC cannot listen on {address}: {why}") from None
    for family, kind, protocol, _, place in places:
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(place)
                return
            except OSError as error:
                why = os.strerror(error.errno or 0).lower()
    raise BindFailed(f"gRPC cannot listen on {address}: {why}")


class _ForProcesses:
    """A service whose RPCs answer other processes, and refuse clients."""

    def __init__(
        self,
        service: "TurnService | SessionService | EventService | PersonalityService | MemoryService | ProviderService",
    ) -> None:
        self.SERVICE = service.SERVICE
        self._service = service

    def __getattr__(self, name: str) -> Callable[[Call, Any], Any]:
        body = getattr(self._service, name)

        def answer(call: Call, request: Any) -> Any:
            if not call.at_owner:
                raise Unimplemented("This process has not the role api: ask one that has.")
            return body(call, request)

        return answer


class _Collector:
    """Stands where generated code expects a server, and keeps the handlers that it is given."""

    def __init__(self) -> None:
        self.found: dict[str, AnyHandler] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        del handlers

    def add_registered_method_handlers(self, service: str, handlers: dict[str, AnyHandler]) -> None:
        self.found |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


def _health_handlers(health: Health) -> dict[str, AnyHandler]:
    collector = _Collector()
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, collector)
    return collector.found
