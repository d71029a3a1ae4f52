"""Whole engines in one event loop, on one journal in memory: what a door asks, as from several processes."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types
from kfm_server.clock import SystemClock
from kfm_server.journal.memory import MemoryJournal, MemoryLeases
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.feeds import Feeds
from kfm_server.runtime.lane_parts import LaneParts
from kfm_server.runtime.lease_keeper import LeaseKeeper
from kfm_server.runtime.sessions import Sessions
from kfm_server.runtime.turn_manager import TurnDefaults, TurnManager
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.registry import ToolRegistry
from kfm_server.turns.decide.draft import World

from tests.support.deciding import REGISTRY


@dataclass(frozen=True)
class Engine:
    """One process's."""

    manager: TurnManager
    sessions: Sessions
    keeper: LeaseKeeper
    broadcaster: Broadcaster
    journal: MemoryJournal


@asynccontextmanager
async def engine(
    name: str, journal: MemoryJournal, *, registry: ToolRegistry = REGISTRY, max_queued_turns: int = 100
) -> AsyncGenerator[Engine]:
    """Start one; it takes the partitions that nobody holds. Bounded by a minute."""
    clock, broadcaster, leases = SystemClock(), Broadcaster(), MemoryLeases(journal)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        mine: set[asyncio.Task[None]] = set()

        def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
            task = tasks.create_task(work, name=name)
            mine.add(task)
            task.add_done_callback(mine.discard)
            return task

        parts = LaneParts(
            journal=journal,
            runner=StepProcessor(registry.tools, registry.catalogue, clock),
            clock=clock,
            world=World(
                tools=registry.catalogue,
                tools_digest=registry.digest,
                schema_release="1.1.0",
                max_queued_turns=max_queued_turns,
            ),
            broadcaster=broadcaster,
            spawn=spawn,
            late_result=lambda: None,
        )
        sessions = Sessions(journal, parts, journal.partitions)
        keeper = LeaseKeeper(
            leases=leases,
            sessions=sessions,
            broadcaster=broadcaster,
            clock=clock,
            owner=name,
            address="",
            on_serving=lambda up: None,
        )
        feeds = Feeds(leases=leases, sessions=sessions, broadcaster=broadcaster, owner=name, spawn=spawn)
        manager = TurnManager(
            journal=journal,
            leases=leases,
            sessions=sessions,
            broadcaster=broadcaster,
            feeds=feeds,
            clock=clock,
            defaults=TurnDefaults(),
        )
        await keeper.start(take_over=False)
        leases.on_wake(keeper.posted)
        spawn(keeper.run(), "leases")
        try:
            yield Engine(manager, sessions, keeper, broadcaster, journal)
        finally:
            sessions.close()
            for task in tuple(mine):
                task.cancel()


def spec(document: str, session_id: str) -> api.TurnSpec:
    """A turn of a given plan."""
    return api.TurnSpec(session_id=session_id, input=[types.Part(data_json=document)])
