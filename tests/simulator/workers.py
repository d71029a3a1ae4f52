"""Workers of a pool: the real leases and link of `kfm worker`, on a host that can be killed or frozen."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

from kfm.worker.v1 import worker_service_pb2 as pb
from kfm_server.steps.step_processor import StepProcessor
from kfm_server.worker.lease import with_latest_start
from kfm_server.worker.leases import Leases

from tests.simulator.ledger import SimTool
from tests.simulator.loop import Host, host_context
from tests.simulator.network import ANYWHERE, SimLink
from tests.simulator.process import VirtualClock

POOL = "gpu"


class _Leases(Leases):
    """Told of every acknowledgement, before it counts."""

    on_ack: Callable[[pb.Ack], None]

    def acknowledged(self, ack: pb.Ack) -> None:
        """As Leases."""
        self.on_ack(ack)
        super().acknowledged(ack)


class SimWorker:
    """A process of a worker; its name outlives it, `instance` does not."""

    def __init__(
        self,
        name: str,
        instance: str,
        tools: dict[str, SimTool],
        dice: random.Random,
        report: Callable[[str], None],
        on_ack: Callable[[pb.Ack], None],
    ) -> None:
        """It connects at once."""
        loop = asyncio.get_running_loop()
        self.name = name
        self.host = Host(f"{name}/{instance}")
        self.stopping = False
        self._loop = loop
        self._report = report
        self._tasks: dict[asyncio.Task[Any], None] = {}
        clock = VirtualClock(loop)
        catalogue = {tool.name: tool.entry for tool in tools.values()}
        runner = StepProcessor(tools, catalogue, clock, layers=[with_latest_start(clock)])
        capacity = dice.randint(1, 3)
        self.leases = _Leases(runner.run, tools, capacity, clock, self._spawn)
        self.leases.on_ack = on_ack
        self._self = pb.Hello(worker=name, pool=POOL, capacity=capacity, instance=instance)
        link = SimLink((ANYWHERE,), self._hello, self.leases, "", None)
        self.leases.line = link
        self._link = self._spawn(self._keep(link))

    def _hello(self) -> pb.Hello:
        hello = pb.Hello(running=self.leases.refs())
        hello.MergeFrom(self._self)
        return hello

    async def _keep(self, link: SimLink) -> None:
        await link.run()

    def stop(self) -> None:
        """As SIGTERM: take no more, end what runs, tell it, leave."""
        self.stopping = True
        self._spawn(self._stop())

    async def _stop(self) -> None:
        self.leases.leave()
        try:
            async with asyncio.timeout(6):
                await self.leases.empty.wait()
        except TimeoutError:
            self.leases.give_up()
            await asyncio.sleep(1)
        self.host.kill()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work, context=host_context(self.host))
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._report(f"worker {self.name} failed: {task.exception()!r}")
        self._tasks.pop(task, None)
