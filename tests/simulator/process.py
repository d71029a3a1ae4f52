"""One server process: the engine, wired as app.py wires it, on a host that can be killed or frozen."""

import asyncio
import contextlib
import random
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

from kfm.worker.v1 import worker_service_pb2 as pb
from kfm_server.clock import SharedClock
from kfm_server.context import ExecutionContext
from kfm_server.doors.grpc.interceptor import Call
from kfm_server.doors.grpc.worker_service import WorkerService
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.feeds import Feeds
from kfm_server.runtime.lane_parts import LaneParts
from kfm_server.runtime.lease_keeper import LeaseKeeper
from kfm_server.runtime.pools.hub import WorkerPools
from kfm_server.runtime.sessions import Sessions
from kfm_server.runtime.turn_manager import TurnDefaults, TurnManager
from kfm_server.steps.middleware import Handler
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tool_catalogue import catalogue_digest
from kfm_server.turns.decide.draft import World
from kfm_server.worker.relay import WorkerRelay

from tests.simulator.database import Connection, Database
from tests.simulator.ledger import SimTool
from tests.simulator.loop import Host, host_context
from tests.simulator.models import MODELS, PERSONALITIES

EPOCH_US = 1_700_000_000_000_000
POOL_WINDOW_US = 4_000_000


class _NoCatalogue:
    """Everybody knows the tools of the pool."""

    async def announce(self, pool: str, tools: Sequence[pb.ToolDefinition]) -> None:
        """As the door's Tools."""


class VirtualClock:
    """The Clock port on the loop's time; its wall clock may be wrong."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wrong_us: int = 0) -> None:
        self._loop = loop
        self._wrong_us = wrong_us

    def now_us(self) -> int:
        """Virtual wall time."""
        return EPOCH_US + self._wrong_us + int(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()


class Process:
    """A server. `door` runs a call in it, as a gRPC handler would."""

    def __init__(
        self,
        name: str,
        database: Database,
        tools: dict[str, SimTool],
        dice: random.Random,
        report: Callable[[str], None],
        model: Handler,
        may_start: Callable[[], bool],
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.host = Host(name)
        self.ready = False
        self.stopping = False
        self.exclusive = False
        self.calls: dict[asyncio.Task[Any], str] = {}
        """Calls of clients that have not been answered."""
        self._loop = loop
        self._report = report
        self._may_start = may_start
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._count = 0
        # Hours apart, each by its name: the engine goes by the database's time.
        clock = SharedClock(VirtualClock(loop, zlib.crc32(name.encode()) % 49 * 600_000_000 - 14_400_000_000))
        connection = Connection(database, self.host, clock)
        catalogue = {tool.name: tool.entry for tool in tools.values()}
        here = {name: tool for name, tool in tools.items() if not tool.pool}
        world = World(
            tools=catalogue,
            tools_digest=catalogue_digest(catalogue),
            schema_release="sim",
            max_queued_turns=6,
            personalities=PERSONALITIES,
            models=MODELS,
            pool_window_us=POOL_WINDOW_US,
        )
        self.broadcaster = Broadcaster()

        def may_lease(session_id: str) -> bool:
            owner = self.sessions.owner(self.sessions.partition(session_id))
            return owner is not None and owner.may_start()

        self.pools = WorkerPools(
            StepProcessor(here, catalogue, clock, models=model).run,
            clock,
            may_lease=may_lease,
            owns=lambda session_id: self.sessions.caught_up(session_id),
        )
        self._service = WorkerService(
            self.pools.connections, _NoCatalogue(), version="sim", schema_release="sim", max_message_bytes=0
        )
        self._relay = WorkerRelay(
            self.pools,
            connection,
            owner=name,
            address=f"{name}:1",
            partitions=database.memory.partitions,
            token="",
            clock=clock,
            spawn=self._spawn,
        )
        parts = LaneParts(
            journal=connection,
            runner=self.pools,
            clock=clock,
            world=world,
            broadcaster=self.broadcaster,
            spawn=self._spawn,
            late_result=lambda: None,
        )
        self.sessions = Sessions(connection, parts, database.memory.partitions)
        self.keeper = LeaseKeeper(
            leases=connection,
            sessions=self.sessions,
            broadcaster=self.broadcaster,
            clock=clock,
            owner=name,
            address=f"{name}:1",
            on_serving=lambda up: None,
        )
        feeds = Feeds(
            leases=connection,
            sessions=self.sessions,
            broadcaster=self.broadcaster,
            owner=name,
            spawn=self._spawn,
        )
        self.manager = TurnManager(
            journal=connection,
            leases=connection,
            sessions=self.sessions,
            broadcaster=self.broadcaster,
            feeds=feeds,
            clock=clock,
            defaults=TurnDefaults(step_timeout_us=3_000_000),
            ids=lambda prefix: self._id(prefix, dice),
        )
        self._connection = connection

    @property
    def serving(self) -> bool:
        """It answers calls."""
        return self.ready and not self.host.dead and not self.host.frozen and not self.stopping

    @property
    def listening(self) -> bool:
        """It accepts connections of workers."""
        return self.ready and not self.stopping

    def work(
        self, requests: AsyncGenerator[pb.WorkRequest], *, at_owner: bool
    ) -> AsyncGenerator[pb.WorkResponse, None]:
        """As Door."""
        return self._service.Work(Call(ExecutionContext(), "", None, at_owner), requests)

    def start(self, *, take_over: bool) -> None:
        """Begin; it serves as soon as it has looked for partitions."""
        self.door(self._main(take_over=take_over), "main")

    def door(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run something in the process."""
        task = self._loop.create_task(work, name=f"{self.name} {name}", context=host_context(self.host))
        self._tasks[task] = None
        return task

    def stop(self) -> None:
        """As SIGTERM: drain, wait for attempts, give the leases back, end."""
        self.stopping = True
        self.door(self._stop(), "stop")

    async def _main(self, *, take_over: bool) -> None:
        while not self._may_start():  # noqa: ASYNC110 (virtual time)
            await asyncio.sleep(0.1)
        await self._connection.set_clock()
        while True:
            try:
                await self.keeper.start(take_over=take_over)
                break
            except JournalUnavailable:
                # The real one ends here, with all that it had begun, and is started again.
                self.sessions.close()
                await asyncio.sleep(0.5)
        self._connection.on_wake(self.keeper.posted)
        self._keeper_task = self._spawn(self.keeper.run(), "leases")
        self._spawn(self._relay.run(), "relay of workers")
        self.ready = True

    async def _stop(self) -> None:
        self.manager.drain()
        self.pools.leave("the server is stopping")
        await asyncio.sleep(0)
        self.sessions.hold()
        await self.sessions.quiet(5)
        if self.ready:
            self._keeper_task.cancel()
        with contextlib.suppress(JournalUnavailable):
            await self.keeper.release()
        self.host.kill()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = self._loop.create_task(work, name=f"{self.name} {name}", context=host_context(self.host))
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._report(f"task {task.get_name()!r} failed, which ends the process: {task.exception()!r}")
        self._tasks.pop(task, None)

    def _id(self, prefix: str, dice: random.Random) -> str:
        self._count += 1
        return f"{prefix}_{int(self._loop.time() * 1000):08x}{dice.getrandbits(32):08x}{self.name}"
