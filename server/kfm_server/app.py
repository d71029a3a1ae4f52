"""The composition root: the only file that names concrete adapters."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from datetime import timedelta
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg
import structlog
from kfm.catalogue.events import SCHEMA_RELEASE, TOPICS
from kfm.event.v1.system_events_pb2 import ConfigChangedEvent

from kfm_server import logs, metrics
from kfm_server.bus.audit import audit_group
from kfm_server.bus.consumer import Consumer, consume
from kfm_server.bus.dead_letters import DeadLetterDesk
from kfm_server.bus.engine import EngineHolds
from kfm_server.bus.intake import (
    REQUESTS_LINGER,
    REQUESTS_PROBE,
    RESULTS_PROBE,
    requests_group,
    results_group,
)
from kfm_server.bus.postgres import PostgresBusStore
from kfm_server.bus.relay import Relay
from kfm_server.bus.sources import BrokerSource, JournalSource
from kfm_server.bus.turn_metrics import TURN_METRICS
from kfm_server.bus.turn_traces import TurnTraces
from kfm_server.clock import Clock, SharedClock, VirtualClock, on_the_loop
from kfm_server.doors.binding import BindRefused, check_advertised, check_bind, reachable
from kfm_server.doors.bus import BusDoor
from kfm_server.doors.grpc.admin_service import ServerInfo
from kfm_server.doors.grpc.health import Health
from kfm_server.doors.grpc.limits import Limits
from kfm_server.doors.grpc.owner_watch import OwnerWatch
from kfm_server.doors.grpc.personality_service import PersonalityService
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
from kfm_server.ports.broker import BrokerMisfit
from kfm_server.ports.bus import Group
from kfm_server.ports.journal import JournalUnavailable
from kfm_server.providers.factory import ModelsInvalid, Providers
from kfm_server.runtime.announcing import Announcer
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.conversation import Conversation
from kfm_server.runtime.event_feed import EventFeed
from kfm_server.runtime.event_tail import EventTail
from kfm_server.runtime.feeds import Feeds
from kfm_server.runtime.lease_keeper import LeaseKeeper
from kfm_server.runtime.session_lane import LaneParts
from kfm_server.runtime.sessions import Sessions
from kfm_server.runtime.turn_manager import TurnDefaults, TurnManager
from kfm_server.runtime.workers import WorkerPools
from kfm_server.settings import Change, Config, ConfigReloader, Settings, SettingsError, Telemetry, TurnLimits
from kfm_server.steps.model_step import model_step
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tasks import task_group
from kfm_server.tools.http_fetch import http_fetch_tools
from kfm_server.tools.outbound import PatternInvalid
from kfm_server.tools.pool_tools import PoolTools
from kfm_server.tools.registry import ToolRegistry, ToolsInvalid, build_registry
from kfm_server.turns.decide.draft import World
from kfm_server.turns.planners.agent import ASK_PERSON
from kfm_server.worker.program import Worker, WorkerOptions, leave, worker_registry
from kfm_server.worker.relay import WorkerRelay

if TYPE_CHECKING:
    from kfm_server.bus.pool_lag import PoolLag
    from kfm_server.telemetry import OtlpTracing

log = structlog.get_logger(__name__)
CAPABILITIES = (
    "config.reload",
    "events.watch",
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
    tools, worker_tools = _prepare(config)
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
            reason = why_not(dsn, error, _told_of(config, "database_url")) if settings.database_url else None
            raise reason or error from error
        group = await stack.enter_async_context(task_group())
        if postgres is not None:
            reviving = group.spawn(postgres.keep_alive(_database_died), "postgres")
            stack.callback(reviving.cancel)
        journal = await stack.enter_async_context(PostgresJournal.open(dsn, on_failure=group.fail))
        leases = await stack.enter_async_context(PostgresLeases.open(dsn, clock=clock))
        bus = await stack.enter_async_context(PostgresBusStore.open_pool(dsn))
        world = _world(tools, settings)
        owner = new_id("proc")
        tracing = _tracing(settings.telemetry, owner)
        providers = Providers(settings.models)
        stack.push_async_callback(providers.close)
        history = Conversation(journal, PostgresSessionRows(journal.rows))
        models = model_step(providers.get, tools.catalogue, history)
        call_later = virtual.call_later if virtual is not None else on_the_loop
        local = StepProcessor(tools.tools, tools.catalogue, clock, models=models, traced=tracing is not None)

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
        pool_tools = PoolTools(
            journal.rows, tools, lambda: sessions.reconfigure(_world(tools, config.settings))
        )
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
            defaults=_turn_defaults(settings.limits),
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

        relaying, intake, lags = await _over_broker(
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
            sessions.reconfigure(_world(tools, new))
            manager.reconfigure(_turn_defaults(new.limits))

        announcer = Announcer(leases=leases, partitions=settings.partitions, clock=clock, ids=new_id)

        async def tell(change: Change) -> None:
            try:
                await announcer.announce(ConfigChangedEvent(digest=change.digest, changed=change.applied))
            except JournalUnavailable as away:
                log.warning("config_change_not_announced", error=str(away))

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
                lambda: (config.settings.personalities, config.settings.default_personality),
                tools.catalogue.keys,
            ),
            dead_letters=DeadLetterDesk(bus, decided),
            config=reloader,
            pools=pools,
            pool_tools=pool_tools,
            info=ServerInfo(
                version("kfm-server"), SCHEMA_RELEASE, (*CAPABILITIES, *map("role.{}".format, settings.role))
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
        http_door = HttpDoor(
            address=settings.http_address,
            parts=lambda: health.parts() | {"config": not config.last_error},
            grpc=(lambda: bound) if answers else None,
            token=settings.token.reveal(),
            mcp_groups=tuple(filter(None, (settings.mcp_group,))),
            roles=settings.role,
        )
        keeper = LeaseKeeper(
            leases=leases,
            sessions=sessions,
            broadcaster=broadcaster,
            clock=clock,
            owner=owner,
            address=settings.advertised_address or reachable(bound),
            on_serving=serving,
            owns=owns,
        )
        await pool_tools.load()
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
        consuming = [group.spawn(consumer.run(), "bus") for consumer in (*consumers, *relaying, *intake)]
        consuming += [group.spawn(lag.run(), "lag") for lag in lags]
        consuming.append(group.spawn(reloader.run(), "config"))
        consuming.append(group.spawn(pool_tools.run(), "pool tools"))
        relay = WorkerRelay(
            pools,
            leases,
            owner=owner,
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
            hosted = Worker(_hosted(settings, bound), worker_tools, lambda work: group.spawn(work, "attempt"))
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


async def _over_broker(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    *,
    journal: PostgresJournal,
    store: PostgresBusStore,
    assigned: Callable[[], Mapping[int, int]],
    clock: Clock,
    door: BusDoor,
) -> tuple[list[Consumer], list[Consumer], "list[PoolLag]"]:
    """The relay and the intake, for the partitions that this process owns, and the pools' lag; nothing without a broker.

    Raises SettingsError for a broker that is not as it must be; one that is away is waited for.
    """
    if not settings.iggy.address or "runtime" not in settings.role:
        return [], [], []
    try:
        from kfm_server.bus.iggy.broker import IggyBroker
        from kfm_server.bus.pool_lag import PoolLag
    except ImportError as error:
        raise SettingsError(f"KFM_IGGY_ADDRESS: install kfm-server[iggy]: {error}") from None
    try:
        broker = await stack.enter_async_context(IggyBroker.open(settings.iggy, TOPICS, settings.partitions))
    except BrokerMisfit as misfit:
        raise SettingsError(f"KFM_IGGY_ADDRESS: {misfit}") from None

    def read(group: Group, probe: tuple[float, float], linger: float = 0.0) -> Consumer:
        source = BrokerSource(broker, group.topics)
        return consume(
            group, source=source, store=store, assigned=assigned, clock=clock, linger=linger, probe=probe
        )

    intake = [read(requests_group(door.ask), REQUESTS_PROBE, REQUESTS_LINGER)]
    results = read(results_group(door.result), RESULTS_PROBE) if settings.iggy.pools else None
    # Without a worker on the broker nobody waits for a copy, and the turns here come first.
    relay = Relay(
        journal=journal,
        broker=broker,
        store=store,
        assigned=assigned,
        clock=clock,
        linger=1.0 if results is None else 0.0,
        pools=settings.iggy.pools,
        dispatched=None if results is None else results.expect,
    )
    if results is not None:
        intake.append(results)
    return [relay.consumer], intake, [PoolLag(broker, settings.iggy.pools, assigned, clock)]


def _hosted(settings: Settings, bound: str) -> WorkerOptions:
    """The worker in this process works for this process, over its own door."""
    given, token = settings.worker, settings.token.reveal()
    return WorkerOptions(given.pool, given.tools, (reachable(bound),), token, capacity=given.capacity)


def _prepare(config: Config) -> tuple[ToolRegistry, ToolRegistry]:
    """All that can be refused before a database starts; what is wrong is told under its setting's name.

    Answers the tools of the server, and those of its worker.
    """
    settings, token = config.settings, config.settings.token.reveal()
    with _named("KFM_GRPC_ADDRESS"):
        check_bind(settings.grpc_address, token)
    with _named("KFM_HTTP_ADDRESS"):
        check_bind(settings.http_address, token)
    with _named("KFM_ADVERTISED_ADDRESS"):
        if settings.advertised_address:
            check_advertised(settings.advertised_address)
    with _named("KFM_HTTP_FETCH_ALLOW"):
        fetch = http_fetch_tools(filter(None, map(str.strip, settings.http_fetch_allow.split(","))))
    with _named("KFM_TOOLS"):
        tools = build_registry(settings.tools, fetch)
    config.require_tools({*tools.catalogue, ASK_PERSON})
    if settings.role == ("worker",):
        raise SettingsError(f"{_told_of(config, 'role')}: worker alone needs no server: run kfm worker")
    if "runtime" not in settings.role and not settings.database_url:
        nobody = (
            f"{','.join(settings.role)} without runtime: nobody would run what is in the embedded database"
        )
        raise SettingsError(f"{_told_of(config, 'role')}: {nobody}; set KFM_DATABASE_URL to the runtimes'")
    worker_tools = ToolRegistry(())
    if "worker" in settings.role:
        if not settings.worker.pool:
            raise SettingsError("KFM_WORKER_POOL: the role worker needs a pool that it serves")
        with _named("KFM_WORKER_TOOLS"):
            worker_tools = worker_registry(settings.worker.tools)
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "is no directory" if isinstance(error, FileExistsError) else f"cannot be made: {error.strerror}"
        raise OSError(f"KFM_HOME: {settings.home} {why}") from error
    return tools, worker_tools


def _world(tools: ToolRegistry, settings: Settings) -> World:
    return World(
        tools=tools.catalogue,
        tools_digest=tools.digest,
        schema_release=SCHEMA_RELEASE,
        personalities=settings.personalities,
        default_personality=settings.default_personality,
        models=settings.models,
    )


def _told_of(config: Config, name: str) -> str:
    """A setting as its errors call it: by the variable, or by the line of the file, that set it."""
    value = config.values.get(name)
    place = value.place if value else ""
    return f"{place}: {name}" if place and not place.startswith("KFM_") else place or f"KFM_{name.upper()}"


def _tracing(telemetry: Telemetry, instance: str) -> "OtlpTracing | None":
    """Where traces go; None if nowhere: then nothing of OpenTelemetry is imported."""
    if not telemetry.otlp_endpoint:
        return None
    try:
        from kfm_server.telemetry import OtlpTracing
    except ImportError as error:
        raise SettingsError(f"KFM_OTLP_ENDPOINT: install kfm-server[telemetry]: {error}") from None
    return OtlpTracing(
        telemetry.otlp_endpoint,
        telemetry.otlp_headers,
        instance,
        sample_ratio=telemetry.sample_ratio,
        capture_content=telemetry.capture_content,
    )


def _turn_defaults(limits: TurnLimits) -> TurnDefaults:
    return TurnDefaults(
        timeout_us=int(limits.timeout * 1_000_000),
        max_steps=limits.max_steps,
        max_attempts=limits.max_attempts,
        max_in_flight=limits.max_in_flight,
        step_timeout_us=int(limits.step_timeout * 1_000_000),
        max_model_calls=limits.max_model_calls,
        max_tokens=limits.max_tokens,
        max_cost_nanos=limits.max_cost_nanos,
    )


@contextlib.contextmanager
def _named(setting: str) -> Generator[None]:
    try:
        yield
    except (BindRefused, ToolsInvalid, PatternInvalid) as error:
        raise SettingsError(f"{setting}: {error}") from error


def _database_died(code: int) -> None:
    log.error("postgres_died", code=code)
