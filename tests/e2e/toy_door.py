"""A real gRPC door over the toy, on a port of its own."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, cast

from kfm_server.clock import SystemClock
from kfm_server.doors.grpc.admin_service import ServerInfo
from kfm_server.doors.grpc.health import Health
from kfm_server.doors.grpc.limits import Limits
from kfm_server.doors.grpc.memory_service import MemoryService
from kfm_server.doors.grpc.personality_service import PersonalityService
from kfm_server.doors.grpc.provider_service import ProviderService
from kfm_server.doors.grpc.server import GrpcDoor
from kfm_server.journal.history import MemorySessionRows
from kfm_server.journal.memory import MemoryJournal
from kfm_server.providers.factory import Providers
from kfm_server.runtime.conversation import Conversation
from kfm_server.runtime.event_feed import EventFeed
from kfm_server.runtime.event_tail import EventTail
from kfm_server.runtime.pools.hub import WorkerPools
from kfm_server.steps.gateway import Gateway
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.pool_tools import PoolTools
from kfm_server.tools.registry import ToolRegistry

from tests.e2e.toy_turns import ToyConfig, ToyDeadLetters, ToyTurns

IMAGE = files("kfm.catalogue").joinpath("image.binpb").read_bytes()


@dataclass
class Running:
    """An open door and what is behind it."""

    grpc: str
    door: GrpcDoor
    turns: ToyTurns
    health: Health


async def _no_rows(*_: object) -> Sequence[Any]:
    return ()


async def _nobody(_: object) -> None: ...


@asynccontextmanager
async def toy_door(
    token: str = "", limits: Limits | None = None, address: str = "127.0.0.1:0", turns: ToyTurns | None = None
) -> AsyncGenerator[Running]:
    """Open a door, yield it, close it."""
    health, turns = Health(), turns or ToyTurns()
    journal, clock, providers = MemoryJournal(), SystemClock(), Providers({})
    door = GrpcDoor(
        address=address,
        turns=turns,
        history=Conversation(journal, MemorySessionRows(journal)),
        events=EventFeed(journal, EventTail(journal, clock), clock, journal.partitions),
        personalities=PersonalityService(lambda: ({}, ""), tuple),
        memory=MemoryService(cast("Any", None), _nobody),
        models=ProviderService(Gateway(providers.get), providers.listed),
        dead_letters=ToyDeadLetters(),
        pools=WorkerPools(StepProcessor({}, {}).run, clock),
        pool_tools=PoolTools(_no_rows, ToolRegistry(()), lambda: None),
        config=ToyConfig(),
        info=ServerInfo("0", "1.1.0", ("planner.rules",)),
        health=health,
        image=IMAGE,
        token=token,
        limits=limits,
    )
    bound = door.bind()
    await door.start()
    await health.set_all(True)
    try:
        yield Running(bound, door, turns, health)
    finally:
        await door.stop(0)
