"""The worker on the broker as a process: `kfm worker --bus`."""

import asyncio
import os
import socket
from dataclasses import replace

import structlog
import uvloop
from xenocomm._gen.errors import XenocommError

from kfm_server import failpoints
from kfm_server.bus.iggy.broker import IggyBroker
from kfm_server.clock import SystemClock
from kfm_server.ports.broker import RESULTS, STEPS, BrokerMisfit
from kfm_server.ports.iggy_settings import IggySettings
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.tools.registry import ToolRegistry
from kfm_server.worker.bus_worker import BusWorker
from kfm_server.worker.ghosts import group_of
from kfm_server.worker.program import (
    INTERRUPTED,
    Worker,
    WorkerOptions,
    first_of,
    on_signals,
    worker_registry,
)

log = structlog.get_logger(__name__)
_READY = failpoints.declare("worker.bus.ready")


def run_on_bus(options: WorkerOptions, iggy: IggySettings, partitions: int) -> int:
    """Work until SIGTERM or SIGINT; answers the exit code.

    Raises ToolsInvalid, BrokerMisfit for topics that have another number of partitions, or the typed error by which a
    server refused its tools.
    """
    registry = worker_registry(options.tools)
    try:
        return uvloop.run(_main(options, registry, iggy, partitions))
    except* (XenocommError, BrokerMisfit) as group:
        failure = first_of(group)
    raise failure


async def _main(options: WorkerOptions, registry: ToolRegistry, iggy: IggySettings, partitions: int) -> int:
    asked, at_once = on_signals()
    clock = SystemClock()
    runner = StepProcessor(registry.tools, registry.catalogue, clock, log=log.bind())
    async with (
        IggyBroker.open(iggy, (STEPS, RESULTS), partitions) as broker,
        broker.group(group_of(options.pool), STEPS) as group,
        asyncio.TaskGroup() as tasks,
    ):
        worker = BusWorker(
            broker,
            group,
            runner.run,
            pool=options.pool,
            name=options.name or f"{socket.gethostname()[:100]}-{os.getpid()}",
            capacity=options.capacity,
            clock=clock,
            spawn=tasks.create_task,
        )
        taking = tasks.create_task(worker.run())
        # Servers learn of its tools, and operators of it; steps do not come that way.
        known = Worker(replace(options, capacity=0), registry, tasks.create_task)
        telling = tasks.create_task(known.link.run())
        log.info("worker_started", pool=options.pool, tools=sorted(registry.tools), broker=iggy.address)
        failpoints.hit(_READY)
        await asked.wait()
        log.info("worker_leaving", drain_seconds=options.drain_seconds)
        leaving = tasks.create_task(worker.leave())
        stopped = tasks.create_task(at_once.wait())
        await asyncio.wait(
            (leaving, stopped), timeout=options.drain_seconds, return_when=asyncio.FIRST_COMPLETED
        )
        whole = leaving.done()
        for task in (taking, telling, leaving, stopped):
            task.cancel()
        if not whole:  # what runs comes to another worker, for it is not committed
            await asyncio.wait((taking,), timeout=2.0)
            log.warning("worker_stopped", whole=False)
            os._exit(INTERRUPTED if at_once.is_set() else 0)
    log.info("worker_stopped", whole=True)
    return 0
