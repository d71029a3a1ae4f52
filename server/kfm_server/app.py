"""The composition root: the only file that names concrete adapters."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from importlib.metadata import version
from importlib.resources import files

import asyncpg
import structlog
from google.protobuf.message import Message
from kfm.catalogue.events import SCHEMA_RELEASE
from kfm.event.v1.system_events_pb2 import ConfigChangedEvent

from kfm_server import logs, metrics
from kfm_server.bus.audit import audit_group
from kfm_server.bus.consumer import consume
from kfm_server.bus.dead_letters import DeadLetterDesk
from kfm_server.bus.engine import EngineHolds
from kfm_server.bus.postgres import PostgresBusStore
from kfm_server.bus.sources import JournalSource
from kfm_server.bus.turn_metrics import TURN_METRICS
from kfm_server.bus.turn_traces import TurnTraces
from kfm_server.clock import SharedClock, VirtualClock, on_the_loop
from kfm_server.composition.broker import over_broker
from kfm_server.composition.cache import open_cache
from kfm_server.composition.mcp import open_mcp
from kfm_server.composition.memory import bind_memory, open_memory
from kfm_server.composition.ops import open_ops
from kfm_server.composition.packs import open_packs
from kfm_server.composition.prepared import (
    hosted_worker,
    prepare,
    told_of,
    tracing_of,
    turn_defaults,
    world_of,
)
from kfm_server.composition.sandboxes import bind_code, open_sandboxes
from kfm_server.doors.binding import reachable
from kfm_server.doors.bus import BusDoor
from kfm_server.doors.grpc.admin_service import ServerInfo
from kfm_server.doors.grpc.health import Health
from kfm_server.doors.grpc.limits import Limits
from kfm_server.doors.grpc.memory_service import MemoryService
from kfm_server.doors.grpc.owner_watch import OwnerWatch
from kfm_server.doors.grpc.personality_service import PersonalityService
from kfm_server.doors.grpc.provider_service import ProviderService
from kfm_server.doors.grpc.server import GrpcDoor
from kfm_server.doors.http.app import HttpDoor
from kfm_server.endpoints import Endpoints, told
from kfm_server.ids import new_id
from kfm_server.journal import embedded
from kfm_server.journal.history import PostgresSessionRows
from kfm_server.journal.leases import PostgresLeases
from kfm_server.journal.migrate import MigrationError, migrate
from kfm_server.journal.postgres import PostgresJournal
from kfm_server.journal.reaching import DatabaseRefused, why_not
from kfm_server.journal.retention import Retention
from kfm_server.personalities.knowledge import PackKnowledge
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.providers.factory import ModelsInvalid, Providers
from kfm_server.runtime.announcing import Announcer
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.conversation import Conversation
from kfm_server.runtime.event_feed import EventFeed
from kfm_server.runtime.event_tail import EventTail
from kfm_server.runtime.feeds import Feeds
from kfm_server.runtime.lane_parts import LaneParts
from kfm_server.runtime.lease_keeper import LeaseKeeper
from kfm_server.runtime.pools.hub import WorkerPools
from kfm_server.runtime.sessions import Sessions
from kfm_server.runtime.turn_manager import TurnManager
from kfm_server.settings import Change, Config, ConfigReloader, Settings, SettingsError
from kfm_server.steps.gateway import Gateway
from kfm_server.steps.model_step import model_step
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tasks import task_group
from kfm_server.tools.pool_tools import PoolTools
from kfm_server.turns.decide.draft import World
from kfm_server.worker.program import Worker, leave
from kfm_server.worker.relay import WorkerRelay

log = structlog.get_logger(__name__)
CAPABILITIES = (
    "config.reload",
    "events.watch",
    "models.gateway",
    "models.litellm",
    "models.openai",
    "models.scripted",
    "personalities",
    "planner.given",
    "planner.hybrid",
    "planner.plan",
    "planner.react",
    "planner.rules",
    "sessions",
    "turns.fork",
    "turns.output_schema",
    "turns.settle",
    "workers",
)


WRONG_SETTINGS = (SettingsError, MigrationError, DatabaseRefused, ModelsInvalid)
"""What a start fails with when a setting has to change."""
EXPECTED = (*WRONG_SETTINGS, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, JournalUnavailable)
"""What a start may fail with: said in one line, where anything else is logged whole."""


@contextlib.asynccontextmanager
async def serve(given: Config | Settings, virtual: VirtualClock | None = None) -> AsyncGenerator[Endpoints]:
    """A whole server in this event loop; leaving it drains and stops it. Its timers go by `virtual`, if given.

    Raises what `StartFailed` tells of when it cannot start, before anything is accepted.
    """
    config = given if isinstance(given, Config) else Config.given(given)
    settings = config.settings
    tools, worker_tools = prepare(config)
    owns, answers = "runtime" in settings.role, "api" in settings.role
    clock = virtual or SharedClock()
    health = Health()
    broadcaster = Broadcaster()
    async with contextlib.AsyncExitStack() as stack:
        dsn, exclusive = settings.database_url.reveal(), False
        postgres = None
        if not dsn:
            postgres = await embedded.start(settings.home)
            stack.push_async_callback(postgres.stop)
            dsn, exclusive = postgres.dsn, True
        try:
            await migrate(dsn, partitions=settings.partitions)
        except Exception as error:
            reason = why_not(dsn, error, told_of(config, "database_url")) if settings.database_url else None
            raise reason or error from error
        group = await stack.enter_async_context(task_group())
        if postgres is not None:
            reviving = group.spawn(postgres.keep_alive(_database_died), "postgres")
            stack.callback(reviving.cancel)
        journal = await stack.enter_async_context(PostgresJournal.open(dsn, on_failure=group.fail))
        leases = await stack.enter_async_context(PostgresLeases.open(dsn, clock=clock))
        bus = await stack.enter_async_context(PostgresBusStore.open_pool(dsn))
        sandboxes = await open_sandboxes(stack)
        bind_code(tools, sandboxes)
        packs = await open_packs(sandboxes, settings, journal.rows)
        config.require_default(lambda: packs.registry.personalities)

        def world_now(settings: Settings) -> World:
            return world_of(tools, settings, packs.personalities(settings))

        world = world_now(settings)
        owner = new_id("proc")
        tracing = tracing_of(settings.telemetry, owner)
        now = clock.monotonic if virtual is None else lambda: clock.now_us() / 1_000_000
        cache = await open_cache(stack, settings, now)
        providers = Providers(settings.models, now, cache)
        stack.push_async_callback(providers.close)
        history = Conversation(journal, PostgresSessionRows(journal.rows))
        memory = await open_memory(stack, settings, dsn, providers, history, journal.rows, cache)
        bind_memory(tools, memory, PackKnowledge(packs.store, memory.knowledge))
        models = model_step(providers.get, tools.catalogue, history, memory.facts)
        call_later = virtual.call_later if virtual is not None else on_the_loop
        local = StepProcessor(
            tools.tools,
            tools.catalogue,
            clock,
            models=models,
            packs=packs.tools,
            awaited=tools.awaited,
            traced=tracing is not None,
        )

        def may_lease(session_id: str) -> bool:
            owner = sessions.owner(sessions.partition(session_id))
            return owner is not None and owner.may_start()

        pools = WorkerPools(
            local.run,
            clock,
            may_lease=may_lease,
            owns=lambda session_id: sessions.caught_up(session_id),
            tools=lambda: tools.catalogue,
            over_bus=frozenset(settings.iggy.pools),
            call_later=call_later,
        )

        def changed_world() -> None:
            sessions.reconfigure(world_now(config.settings))

        pool_tools = PoolTools(journal.rows, tools, changed_world)
        mcp = open_mcp(settings, tools, changed_world, now)
        parts = LaneParts(
            journal=journal,
            runner=pools,
            clock=clock,
            world=world,
            broadcaster=broadcaster,
            spawn=group.spawn,
            late_result=metrics.LATE_RESULTS.inc,
            call_later=call_later,
        )
        sessions = Sessions(journal, parts, settings.partitions, EngineHolds(bus, clock))

        def serving(up: bool) -> None:
            if health.serving("journal") != up:
                group.spawn(health.set_all(up), "health")

        feeds = Feeds(
            leases=leases,
            sessions=sessions,
            broadcaster=broadcaster,
            owner=owner,
            spawn=group.spawn,
            owners=OwnerWatch(settings.token.reveal()),
        )
        manager = TurnManager(
            journal=journal,
            leases=leases,
            sessions=sessions,
            broadcaster=broadcaster,
            feeds=feeds,
            clock=clock,
            defaults=turn_defaults(settings.limits),
        )
        metrics.SESSIONS_IN_MEMORY.set_function(lambda: sessions.count)
        metrics.PARTITIONS_OWNED.set_function(lambda: len(sessions.owned))
        loop = asyncio.get_running_loop()
        metrics.TASKS.set_function(lambda: len(asyncio.all_tasks(loop)))
        metrics.WATCHERS.set_function(lambda: broadcaster.count)
        metrics.WATCHER_UNSENT.set_function(lambda: broadcaster.most_unsent)
        groups = [audit_group(bus), TURN_METRICS] if owns else []
        if tracing is not None:
            stack.push_async_callback(tracing.close)
        if tracing is not None and owns:
            groups.append(TurnTraces(journal, tracing, clock).group)
        consumers = [
            consume(
                consumed,
                source=JournalSource(journal),
                store=bus,
                assigned=lambda: {p: owner.epoch for p, owner in sessions.owned.items()},
                clock=clock,
            )
            for consumed in groups
        ]

        relaying, intake, lags = await over_broker(
            stack,
            settings,
            journal=journal,
            store=bus,
            assigned=lambda: {p: owner.epoch for p, owner in sessions.owned.items()},
            clock=clock,
            door=BusDoor(manager, pools),
        )

        async def go_by(new: Settings) -> None:
            logs.hide(new.secrets)
            try:
                providers.reconfigure(new.models)
            except ModelsInvalid as error:
                raise SettingsError(str(error)) from None
            logs.set_level(new.log_level)
            if tracing is not None:
                tracing.reconfigure(new.telemetry.sample_ratio, new.telemetry.capture_content)
            sessions.reconfigure(world_now(new))
            manager.reconfigure(turn_defaults(new.limits))

        announcer = Announcer(leases=leases, partitions=settings.partitions, clock=clock, ids=new_id)

        async def announce(event: Message) -> None:
            try:
                await announcer.announce(event)
            except JournalUnavailable as away:
                log.warning("not_announced", announced=event.DESCRIPTOR.name, error=str(away))

        async def tell(change: Change) -> None:
            await announce(ConfigChangedEvent(digest=change.digest, changed=change.applied))

        async def changed_packs(changes: Sequence[Message]) -> None:
            changed_world()
            for change in changes:
                await announce(change)

        reloader = ConfigReloader(config, go_by, tell)

        def decided() -> None:
            keeper.wake()
            for consumer in (*consumers, *intake):
                consumer.poke()

        tail = EventTail(journal, clock)
        grpc_door = GrpcDoor(
            address=settings.grpc_address,
            turns=manager,
            history=history,
            events=EventFeed(journal, tail, clock, settings.partitions),
            personalities=PersonalityService(
                lambda: (packs.personalities(config.settings), config.settings.default_personality),
                lambda: [name for name, tool in tools.catalogue.items() if not tool.reserved],
                packs.registry,
            ),
            memory=MemoryService(memory, announcer.announce),
            models=ProviderService(Gateway(providers.get, now), providers.listed),
            dead_letters=DeadLetterDesk(bus, decided),
            config=reloader,
            pools=pools,
            pool_tools=pool_tools,
            info=ServerInfo(
                version("kfm-server"),
                SCHEMA_RELEASE,
                (*CAPABILITIES, *map("role.{}".format, settings.role)),
                sandboxes.look,
                mcp.capabilities,
            ),
            health=health,
            image=files("kfm.catalogue").joinpath("image.binpb").read_bytes(),
            token=settings.token.reveal(),
            limits=Limits(max_in_flight=settings.max_in_flight, max_streams=settings.max_streams),
            tracing=tracing,
            clients=answers,
        )
        metrics.CALLS_IN_FLIGHT.set_function(lambda: grpc_door.gate.in_flight)
        metrics.STREAMS.set_function(lambda: grpc_door.gate.streams)
        bound = grpc_door.bind()
        open_ops(stack, tools, bound, settings.token.reveal())
        http_door = HttpDoor(
            address=settings.http_address,
            parts=lambda: (
                health.parts()
                | {"config": not config.last_error, "models": providers.healthy()}
                | mcp.healthy()
            ),
            grpc=(lambda: bound) if answers else None,
            token=settings.token.reveal(),
            mcp_groups=tuple(filter(None, (settings.mcp_group,))),
            roles=settings.role,
            sandboxes=sandboxes.look,
        )
        address = settings.advertised_address or reachable(bound)
        keeper = LeaseKeeper(
            leases=leases,
            sessions=sessions,
            broadcaster=broadcaster,
            clock=clock,
            owner=owner,
            address=address,
            on_serving=serving,
            owns=owns,
        )
        await pool_tools.load()
        consuming = [group.spawn(work, name) for work, name in mcp.work()]
        await mcp.settle()
        await keeper.start(take_over=exclusive)
        renewing = group.spawn(keeper.run(), "leases")
        leases.on_wake(keeper.posted)
        await grpc_door.start()
        data = "" if postgres is None else str(postgres.data)
        endpoints = Endpoints(bound, await http_door.start(), data)
        await health.set_all(True)
        stack.enter_context(told(settings.home, endpoints))
        for consumer in (*consumers, *relaying):
            stack.enter_context(journal.watch(consumer.hint))
        stack.enter_context(journal.watch(tail.hint))
        consuming += [group.spawn(consumer.run(), "bus") for consumer in (*consumers, *relaying, *intake)]
        consuming += [group.spawn(lag.run(), "lag") for lag in lags]
        consuming.append(group.spawn(reloader.run(), "config"))
        consuming.append(group.spawn(pool_tools.run(), "pool tools"))
        consuming.append(group.spawn(packs.registry.run(changed_packs), "packs"))
        relay = WorkerRelay(
            pools,
            leases,
            owner=owner,
            address=address,
            partitions=settings.partitions,
            token=settings.token.reveal(),
            clock=clock,
            spawn=group.spawn,
        )
        consuming.append(group.spawn(relay.run(), "relay of workers"))
        if tracing is not None:
            consuming.append(group.spawn(tracing.run(), "traces"))
        consuming.append(group.spawn(tail.run(), "events"))
        if owns:
            consuming.append(group.spawn(providers.warm(), "models"))
        if owns and settings.retention_days:
            keep = timedelta(days=settings.retention_days)
            retention = await stack.enter_async_context(Retention.open(dsn, keep, lambda: sessions.owned))
            consuming.append(group.spawn(retention.run(), "retention"))
        hosted = None
        if "worker" in settings.role:
            hosted = Worker(
                hosted_worker(settings, bound), worker_tools, lambda work: group.spawn(work, "attempt")
            )
            consuming.append(group.spawn(hosted.link.run(), "worker"))
        gc.freeze()
        log.info("ready", grpc=endpoints.grpc, http=endpoints.http, data=endpoints.data)
        try:
            yield endpoints
        finally:
            log.info("draining")
            if hosted is not None:
                await leave(hosted.leases, settings.drain_seconds, asyncio.Event())
            manager.drain()
            pools.leave("the server is stopping")
            await asyncio.sleep(0)  # what ends by that is in its session's mailbox
            sessions.hold()
            await grpc_door.drain(2.0)
            if not await sessions.quiet(settings.drain_seconds):
                log.warning("steps_cut", count=len(sessions.busy))
            await grpc_door.stop()
            await http_door.stop()
            for task in (renewing, *consuming):
                task.cancel()
            await keeper.release()


def _database_died(code: int) -> None:
    log.error("postgres_died", code=code)
