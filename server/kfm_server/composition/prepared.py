"""What a start is made of, before anything is opened: checked settings, tools, and what is computed from them."""

import contextlib
from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

from kfm.catalogue.events import SCHEMA_RELEASE

from kfm_server.composition.sandboxes import code_tools
from kfm_server.doors.binding import BindRefused, check_advertised, check_bind, reachable
from kfm_server.models import Personality
from kfm_server.ports.tools import Tool
from kfm_server.runtime.turn_manager import TurnDefaults
from kfm_server.settings import Config, Settings, SettingsError, Telemetry, TurnLimits
from kfm_server.tools.knowledge_search import KnowledgeSearch
from kfm_server.tools.ops import ops_tools
from kfm_server.tools.outbound import PatternInvalid
from kfm_server.tools.registry import ToolRegistry, ToolsInvalid, build_registry
from kfm_server.tools.user_memory import Recall, Remember
from kfm_server.turns.decide.draft import World
from kfm_server.turns.planners.agent import ASK_PERSON
from kfm_server.worker.program import WorkerOptions, worker_registry

if TYPE_CHECKING:
    from kfm_server.telemetry import OtlpTracing


def hosted_worker(settings: Settings, bound: str) -> WorkerOptions:
    """The worker in this process works for this process, over its own door."""
    given, token = settings.worker, settings.token.reveal()
    return WorkerOptions(given.pool, given.tools, (reachable(bound),), token, capacity=given.capacity)


def prepare(config: Config) -> tuple[ToolRegistry, ToolRegistry]:
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
        fetch = _fetch_tools(tuple(filter(None, map(str.strip, settings.http_fetch_allow.split(",")))))
    with _named("KFM_TOOLS"):
        tools = build_registry(
            settings.tools,
            (*ops_tools(), KnowledgeSearch(), Remember(), Recall(), *code_tools(settings.code), *fetch),
        )
    config.require_tools({*tools.catalogue, ASK_PERSON})
    if settings.role == ("worker",):
        raise SettingsError(f"{told_of(config, 'role')}: worker alone needs no server: run kfm worker")
    if "runtime" not in settings.role and not settings.database_url:
        nobody = (
            f"{','.join(settings.role)} without runtime: nobody would run what is in the embedded database"
        )
        raise SettingsError(f"{told_of(config, 'role')}: {nobody}; set KFM_DATABASE_URL to the runtimes'")
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


def world_of(tools: ToolRegistry, settings: Settings, personalities: Mapping[str, Personality]) -> World:
    """What decisions rely on beside the state."""
    return World(
        tools=tools.catalogue,
        tools_digest=tools.digest,
        schema_release=SCHEMA_RELEASE,
        personalities=personalities,
        default_personality=settings.default_personality,
        models=settings.models,
    )


def told_of(config: Config, name: str) -> str:
    """A setting as its errors call it: by the variable, or by the line of the file, that set it."""
    value = config.values.get(name)
    place = value.place if value else ""
    return f"{place}: {name}" if place and not place.startswith("KFM_") else place or f"KFM_{name.upper()}"


def tracing_of(telemetry: Telemetry, instance: str) -> "OtlpTracing | None":
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


def turn_defaults(limits: TurnLimits) -> TurnDefaults:
    """What a turn gets that does not say otherwise."""
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


def _fetch_tools(allow: tuple[str, ...]) -> Sequence[Tool]:
    if not allow:
        return ()
    from kfm_server.tools.http_fetch import http_fetch_tools  # and aiohttp: only for who uses it

    return http_fetch_tools(allow)


@contextlib.contextmanager
def _named(setting: str) -> Generator[None]:
    try:
        yield
    except (BindRefused, ToolsInvalid, PatternInvalid) as error:
        raise SettingsError(f"{setting}: {error}") from error
