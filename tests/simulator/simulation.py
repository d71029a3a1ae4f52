"""One seed: servers, clients and faults for a while; then quiet, in which everything must come to its end."""

import asyncio
import gc
import hashlib
import logging
import random
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import structlog
from kfm.turn.v1 import turn_pb2 as api
from kfm_server.worker import relay

from tests.simulator.audit import Auditor
from tests.simulator.clients import TOOLS, Client, Operator, Town
from tests.simulator.database import Database
from tests.simulator.ledger import Ledger, Row, make_tools, pool_tools
from tests.simulator.loop import Stuck, VirtualLoop
from tests.simulator.models import make_model
from tests.simulator.network import Network, SimLink
from tests.simulator.process import Process, VirtualClock
from tests.simulator.workers import POOL, SimWorker

PARTITIONS = 3
FAULT_SECONDS = 14.0
QUIET_SECONDS = 60.0
"""What is not over this long after the last fault is stuck."""
_ALARMS = frozenset(
    {"session_failed", "append_rejected", "session_unreadable", "step_broke", "inbox_item_undecodable"}
)


@dataclass(frozen=True)
class Outcome:
    """What a seed came to. `digest` names the whole journal: the same seed gives the same one."""

    seed: int
    violations: tuple[str, ...]
    digest: str
    turns: int
    events: int
    faults: tuple[str, ...]


class Simulation:
    """All of one seed."""

    def __init__(self, seed: int, loop: VirtualLoop) -> None:
        self.seed = seed
        self.loop = loop
        self.dice = random.Random(f"{seed}:faults")
        self.ledger = Ledger()
        self.tools = make_tools(self.ledger, seed)
        self.model = make_model(self.ledger, seed)
        clock = VirtualClock(loop)
        self.database = Database(random.Random(f"{seed}:database"), clock, self.ledger, PARTITIONS)
        self.auditor = Auditor(self.database.memory, self.ledger)
        self.database.committed = self.auditor.committed
        self.auditor.alive = self.may_run
        self.auditor.taken = self.database.taken
        self.processes: list[Process] = []
        self._hired = 0
        self.faults: list[str] = []
        sessions = [f"ses_{n}" for n in range(self.dice.randint(1, 3))]
        self.town = Town(self.pick, self.auditor, self.auditor.broken, sessions)
        self.network = Network(random.Random(f"{seed}:network"), self.auditor.broken)
        SimLink.network, relay.Link = self.network, SimLink  # type: ignore[misc]
        self.workers: dict[str, SimWorker] = {}
        self.pool = seed % 2 == 1
        if self.pool:
            self.pool_tools = pool_tools(self.ledger, seed, POOL)
            self.tools |= self.pool_tools
            self.town.tools = (*TOOLS, *list(self.pool_tools)[:4], "pool_idem", "pool_once", "pool_do")

    def may_run(self, row: Row) -> bool:
        """Whether a tool call's process still lives. What a frozen one does when it wakes, the epoch fences."""
        return row.host is None or not (row.host.dead or row.host.frozen)

    def pick(self, dice: random.Random) -> Process | None:
        """A server that seems to answer: frozen ones do too."""
        there = [p for p in self.processes if p.ready and not p.host.dead and not p.stopping]
        return dice.choice(there) if there else None

    # -- the whole

    async def run(self) -> None:
        """Play it. Raises Stuck on a livelock."""
        self.launch(take_over=True)
        if self.dice.random() < 0.7:
            self.launch(take_over=False)
        self.database.refuse = self.dice.choice((0.0, 0.0, 0.01, 0.05))
        self.database.lose_wakeups = self.dice.choice((0.0, 0.5, 1.0))
        for n in range(self.dice.randint(1, 3) if self.pool else 0):
            self.hire(f"w{n}")
        clients = [Client(f"c{n}", self.seed, self.town) for n in range(self.dice.randint(1, 3))]
        operator = Operator("operator", self.seed, self.town)
        playing = [self.loop.create_task(c.play(FAULT_SECONDS), name=c.name) for c in clients]
        attending = self.loop.create_task(operator.attend(), name="operator")
        await self.break_things()
        await self.calm()
        tasks = [*playing, *(w for c in clients for w in c.watches)]
        await self.settle(tasks, clients)
        attending.cancel()
        self.judge(playing, clients)

    async def settle(self, tasks: list[Any], clients: list[Client]) -> None:
        """Wait until all is over, or the time for it is up; then a little more, for what should not come."""
        until = self.loop.time() + QUIET_SECONDS
        while self.loop.time() < until:
            await asyncio.sleep(1.0)
            watches = [w for c in clients for w in c.watches]
            over = all(log.finished is not None for log in self.auditor.turns.values())
            if over and all(t.done() for t in (*tasks, *watches)) and not self.database.memory.inbox:
                break
        await asyncio.sleep(12.0)

    def judge(self, playing: list[asyncio.Task[None]], clients: list[Client]) -> None:
        """The auditor's last word."""
        broken = self.auditor.broken
        self.auditor.finish()
        for task in (*playing, *(w for c in clients for w in c.watches)):
            if not task.done():
                broken(f"I1 a client still waits: {task.get_name()}")
            elif not task.cancelled() and task.exception() is not None:
                broken(f"a client broke: {task.exception()!r}")
        for item in self.database.memory.inbox.values():
            broken(f"I1 inbox row {item.id} was never taken")
        for process in self.processes:
            if process.host.dead:
                continue
            for name in process.calls.values():
                broken(f"I1 {process.name} never answered: {name}")
            if process.sessions.count or process.sessions.busy:
                broken(f"I9 {process.name} still holds {process.sessions.count} sessions")
            _, pools = process.pools.show("")
            for worker in process.pools.show("")[0]:
                if worker.running:
                    broken(f"I9 {process.name} counts {worker.running} attempts of idle {worker.worker}")
            if pools:
                broken(f"I9 {process.name} still awaits attempts of workers: {pools}")
        for worker in self.workers.values():
            if worker.leases.refs():
                broken(f"I9 {worker.host.name} was never answered: {worker.leases.refs()}")

    # -- faults

    def launch(self, *, take_over: bool) -> None:
        """A new server."""
        before = list(self.processes) if not take_over else []

        def may_start() -> bool:
            # One that takes everything is sure to be alone: nobody begins before it is through.
            return all(p.ready or p.host.dead or not p.exclusive for p in before)

        name = f"p{len(self.processes)}"
        process = Process(
            name, self.database, self.tools, self.dice, self.auditor.broken, self.model, may_start
        )
        process.exclusive = take_over
        self.processes.append(process)
        self.network.doors[f"{name}:1"] = process
        process.host.on_kill.append(lambda: self.network.died(process.host))
        process.start(take_over=take_over)

    def hire(self, name: str) -> None:
        """A worker's process; of one that there was before, the next one."""
        before = self.workers.get(name)
        if before is not None:
            before.host.kill()
        self._hired += 1
        worker = SimWorker(
            name,
            f"i{self._hired}",
            self.pool_tools,
            self.dice,
            self.auditor.broken,
            self.auditor.result_acknowledged,
        )
        self.workers[name] = worker
        worker.host.on_kill.append(lambda: self.network.died(worker.host))

    async def trouble(self, seconds: float) -> None:
        """A fault of one worker."""
        worker = self.workers[self.dice.choice(sorted(self.workers))]
        draw = self.dice.choice(("kill", "kill", "freeze", "freeze", "cut", "cut", "stop", "hire"))
        self.note(f"worker {draw} {worker.host.name} {seconds:.2f}")
        if draw == "hire" and len(self.workers) < 4:
            self.hire(f"w{len(self.workers)}")
        elif draw == "kill" or worker.host.dead:
            worker.host.kill()
            await asyncio.sleep(self.dice.choice((0.0, 1.0, 4.0)) * self.dice.random())
            self.hire(worker.name)
        elif draw == "freeze" and not worker.host.frozen:
            worker.host.frozen = True
            self.loop.call_later(seconds, self.wake, worker)
        elif draw == "stop" and not worker.stopping:
            worker.stop()
        elif draw == "cut":
            self.network.cut(worker.host)

    def wake(self, worker: SimWorker) -> None:
        """A frozen worker goes on."""
        if not worker.host.dead and worker.host.frozen:
            self.note(f"thaw {worker.host.name}")
            worker.host.thaw()

    async def break_things(self) -> None:
        """Faults until the time is up."""
        until = self.loop.time() + FAULT_SECONDS
        while self.loop.time() < until:
            await asyncio.sleep(self.dice.expovariate(0.6))
            kinds = ("kill", "kill", "freeze", "freeze", "stop", "away", "slow", "launch", "ambush")
            draw = self.dice.choice((*kinds, *(("worker",) * 6)) if self.pool else kinds)
            living = [p for p in self.processes if not p.host.dead and not p.stopping]
            target = self.dice.choice(living) if living else None
            seconds = self.dice.choice((0.2, 1.0, 2.5, 4.0, 6.0)) * (0.5 + self.dice.random())
            self.note(f"{draw} {target.name if target else ''} {seconds:.2f}")
            if draw == "away":
                self.database.away_until = self.loop.time() + seconds
            elif draw == "slow":
                self.database.slow_until = self.loop.time() + seconds
            elif draw == "ambush":
                await self.ambush(seconds)
            elif draw == "worker":
                await self.trouble(seconds)
            elif draw == "launch":
                if len(living) < 3:
                    self.launch(take_over=False)
            elif target is not None:
                await self.hit(draw, target, seconds)

    async def ambush(self, patience: float) -> None:
        """Kill every server as soon as a step waits for its next try; the new one has to remember the time."""
        until = self.loop.time() + patience
        while self.loop.time() < until:
            soon = VirtualClock(self.loop).now_us() + 200_000
            turns = [log.folded for log in self.auditor.turns.values()]
            steps = [s for t in turns if t is not None and not t.paused for s in t.steps.values()]
            if any(s.phase == api.STEP_STATE_BACKING_OFF and (s.wake_us or 0) > soon for s in steps):
                for process in self.processes:
                    process.host.kill()
                self.launch(take_over=True)
                return
            await asyncio.sleep(0.05)

    async def hit(self, fault: str, target: Process, seconds: float) -> None:
        """A fault of one server."""
        if fault == "freeze":
            if not target.host.frozen:
                target.host.frozen = True
                self.loop.call_later(seconds, self.thaw, target)
            return
        if fault == "kill":
            target.host.kill()
        else:
            target.stop()
        alive = any(not p.host.dead for p in self.processes)
        if not alive and self.dice.random() < 0.5:
            # Nobody else is there: the new one knows it, as with an embedded database.
            self.launch(take_over=True)
        elif not any(p.serving for p in self.processes) or self.dice.random() < 0.7:
            await asyncio.sleep(self.dice.random() * 2)
            alive = any(not p.host.dead for p in self.processes)
            self.launch(take_over=not alive and self.dice.random() < 0.5)

    def thaw(self, target: Process) -> None:
        """It wakes and does not know that it slept."""
        if not target.host.dead:
            self.note(f"thaw {target.name}")
            target.host.thaw()

    async def calm(self) -> None:
        """No more faults; what is frozen wakes; somebody serves."""
        self.town.quiet = True
        self.database.away_until = self.database.slow_until = 0.0
        self.database.refuse = 0.0
        for process in self.processes:
            if process.host.frozen:
                self.thaw(process)
        if not any(not p.host.dead and not p.stopping for p in self.processes):
            self.launch(take_over=False)
        for name, worker in self.workers.items():
            self.wake(worker)
            if worker.host.dead or worker.stopping:
                self.hire(name)
        self.note("calm")

    def note(self, fault: str) -> None:
        """Keep what was done, for the report."""
        self.faults.append(f"[{self.loop.time():9.3f}] {fault}")


def simulate(seed: int) -> Outcome:
    """Run one seed to its end."""
    loop = VirtualLoop()
    random.seed(seed)  # the pauses of links
    simulation = Simulation(seed, loop)
    broken = simulation.auditor.broken

    def alarm(logger: Any, method: str, event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] in _ALARMS:
            broken(f"log: {event['event']} {event.get('exc_info') and _traceback(event)} {event}")
        raise structlog.DropEvent

    structlog.configure(
        processors=[alarm],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        cache_logger_on_first_use=False,
    )
    loop.set_exception_handler(lambda _, context: None)
    asyncio.set_event_loop(loop)
    gc.disable()
    try:
        loop.run_until_complete(simulation.run())
    except Stuck as stuck:
        simulation.auditor.violations.append(f"[{loop.time():9.3f}] I1 {stuck}")
    except Exception as error:
        if not simulation.auditor.violations:
            raise
        simulation.auditor.violations.append(f"and the simulation broke over it: {error!r}")
    finally:
        _bury(loop)
        gc.enable()
        structlog.reset_defaults()
    memory = simulation.database.memory
    digest = hashlib.sha256()
    events = 0
    for partition in range(PARTITIONS):
        for stored in memory._log[partition]:
            digest.update(stored.envelope)
            events += 1
    return Outcome(
        seed,
        tuple(simulation.auditor.violations),
        digest.hexdigest()[:16],
        len(simulation.auditor.turns),
        events,
        tuple(simulation.faults),
    )


def _bury(loop: VirtualLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    # Killed processes leave coroutines that never ended; what their `finally` blocks do now is nobody's concern.
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    asyncio.set_event_loop(None)
    loop.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
    sys.unraisablehook = hook


def _traceback(event: dict[str, Any]) -> str:
    import traceback

    error = event["exc_info"]
    if error is True:
        return traceback.format_exc(limit=-6)
    return "".join(traceback.format_exception(error, limit=-6))
