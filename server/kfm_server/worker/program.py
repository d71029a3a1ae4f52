"""The worker as a process: its registry, its streams, its signals, its exit code."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import orjson
import protovalidate
import structlog
import uvloop
from kfm.catalogue.events import SCHEMA_RELEASE
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb
from xenocomm._gen.errors import InvalidArgument, XenocommError

from kfm_server import failpoints
from kfm_server.clock import Clock, SystemClock
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.registry import ToolRegistry, ToolsInvalid, load_tools
from kfm_server.worker.lease import with_latest_start
from kfm_server.worker.leases import Leases
from kfm_server.worker.link import Link

log = structlog.get_logger(__name__)
_READY = failpoints.declare("worker.ready")
_TELL_SECONDS = 5.0
"""After the drain time: how long what was cut off may take to end and to be told."""
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker is started with. `roots`: as in xenocomm's Connection; `drain_seconds`: how long SIGTERM lets run
    what runs."""

    pool: str
    tools: str
    endpoints: tuple[str, ...]
    token: str = ""
    roots: bytes | None = None
    name: str = ""
    capacity: int = 16
    drain_seconds: float = 30.0


def worker_registry(names: str) -> ToolRegistry:
    """The tools of `module:ATTRIBUTE[,..]`, and no others: a name belongs to one pool. Raises ToolsInvalid."""
    registry = ToolRegistry(load_tools(names))
    if not registry.tools:
        raise ToolsInvalid(f"{names!r} holds no tool")
    for entry in registry.catalogue.values():
        if entry.effect == types.EFFECT_CONTRACT_TRANSACTIONAL:
            raise ToolsInvalid(f"{entry.name}: TRANSACTIONAL tools run in the server only")
    return registry


class Worker:
    """One worker: its leases, and its link to a server."""

    def __init__(
        self,
        options: WorkerOptions,
        registry: ToolRegistry,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        clock: Clock | None = None,
    ) -> None:
        """Connects to nothing yet. Raises InvalidArgument: what it would say of itself breaks a rule of the schema."""
        clock = clock or SystemClock()
        runner = StepProcessor(
            registry.tools, registry.catalogue, clock, layers=[with_latest_start(clock)], log=log.bind()
        )
        self.leases = Leases(runner.run, registry.tools, options.capacity, clock, spawn)
        self._self = _introduction(options, registry)
        _check(self._self)
        self.link = Link(options.endpoints, self._hello, self.leases, options.token, options.roots)
        self.leases.line = self.link

    def _hello(self) -> pb.Hello:
        hello = pb.Hello(running=self.leases.refs())
        hello.MergeFrom(self._self)
        return hello


def run(options: WorkerOptions) -> int:
    """Work until SIGTERM or SIGINT; answers the exit code.

    Raises ToolsInvalid, InvalidArgument, or the typed error by which a server refused the worker.
    """
    registry = worker_registry(options.tools)
    try:
        return uvloop.run(_main(options, registry))
    except* XenocommError as group:
        failure = first_of(group)
    raise failure


def first_of(error: BaseException) -> BaseException:
    """The first error in a group of them, or of groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def on_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Set by the first SIGTERM or SIGINT, which asks to end, and by the next, which asks to end at once."""
    asked, at_once = asyncio.Event(), asyncio.Event()

    def told() -> None:
        (at_once if asked.is_set() else asked).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told)
    return asked, at_once


async def _main(options: WorkerOptions, registry: ToolRegistry) -> int:
    asked, at_once = on_signals()
    async with asyncio.TaskGroup() as tasks:
        worker = Worker(options, registry, tasks.create_task)
        linked = tasks.create_task(worker.link.run())
        log.info("worker_started", pool=options.pool, tools=sorted(registry.tools), capacity=options.capacity)
        failpoints.hit(_READY)
        await asked.wait()
        code = await leave(worker.leases, options.drain_seconds, at_once)
        linked.cancel()
        if worker.leases.running:
            os._exit(code)  # the time is up, and tools may take theirs to be cancelled
    return code


async def leave(leases: Leases, drain_seconds: float, at_once: asyncio.Event) -> int:
    """Take no more, let what runs end and be acknowledged; answers the exit code. `at_once` cuts it short."""
    log.info("worker_leaving", held=len(leases.refs()), drain_seconds=drain_seconds)
    leases.leave()
    empty = asyncio.create_task(leases.empty.wait())
    stopped = asyncio.create_task(at_once.wait())
    try:
        for seconds in (drain_seconds, _TELL_SECONDS):
            await asyncio.wait((empty, stopped), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if empty.done() or stopped.done():
                break
            leases.give_up()
    finally:
        empty.cancel()
        stopped.cancel()
    left = len(leases.refs())
    log.info("worker_stopped", unacknowledged=left) if not left else log.warning(
        "worker_stopped", unacknowledged=left
    )
    return INTERRUPTED if at_once.is_set() else 0


def _introduction(options: WorkerOptions, registry: ToolRegistry) -> pb.Hello:
    """What the worker says of itself, without what it holds."""
    return pb.Hello(
        worker=options.name or f"{socket.gethostname()[:100]}-{os.getpid()}",
        pool=options.pool,
        tools=[
            pb.ToolDefinition(
                name=entry.name,
                description=entry.description,
                input_schema_json=orjson.dumps(dict(entry.input_schema)).decode(),
                effect=entry.effect,
                compensation_tool=entry.compensation,
            )
            for entry in registry.catalogue.values()
        ],
        capacity=options.capacity,
        schema_release=SCHEMA_RELEASE,
        program=f"kfm worker {version('kfm-server')}",
        instance=secrets.token_hex(8),
    )


def _check(hello: pb.Hello) -> None:
    """Refuse here what every server would: InvalidArgument."""
    found = protovalidate.collect_violations(hello)
    if not found:
        return
    told: list[tuple[str, str, str]] = []
    for violation in (v.proto for v in found):
        elements = violation.field.elements if violation.field else ()
        path = ".".join(str(element.field_name) for element in elements)
        told.append((path, violation.rule_id, violation.message))
    raise InvalidArgument(f"{told[0][0]}: {told[0][2]}", violations=told)
