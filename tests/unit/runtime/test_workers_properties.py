"""The hub of worker pools, whatever workers, streams, owners and time do: by properties."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb
from kfm_server.ports.attempt_refs import Key, key_of, ref_of
from kfm_server.ports.steps import STOPPED, Attempt, AttemptLost, AttemptResult
from kfm_server.runtime.pools.worker import Send, Worker

from tests.support.hub import NOW_US, US, Hub, attempt, good, rounds

NAMES = ("v", "w")


@dataclass
class Process:
    """A worker's process, as it is: `runs` and `done` are what it truly holds."""

    name: str
    capacity: int = 2
    instance: int = 0
    runs: set[Key] = field(default_factory=set[Key])
    done: set[Key] = field(default_factory=set[Key])
    stream: list[pb.WorkResponse] | None = None
    send: Send | None = None
    at: Worker | None = None

    @property
    def open(self) -> bool:
        """The server and the worker both take the stream for open."""
        return self.at is not None and self.at.send is self.send and self.send is not None


class Pools(RuleBasedStateMachine):
    """Two workers of one pool, and whoever asks for attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.hub = Hub()
        self.workers = {name: Process(name) for name in NAMES}
        self.asked: dict[Key, Attempt] = {}
        self.tasks: dict[Key, asyncio.Task[AttemptResult]] = {}
        self.started: dict[Key, str] = {}
        self.results: dict[Key, AttemptResult] = {}
        self.recorded: set[Key] = set()
        self.over: set[Key] = set()
        """Lost, failed, or taken back: a result is late."""
        self.elapsed = 0.0

    # What owners do

    @rule(effect=st.sampled_from((types.EFFECT_CONTRACT_IDEMPOTENT, types.EFFECT_CONTRACT_AT_MOST_ONCE)))
    @precondition(lambda self: len(self.tasks) - len(self.over) - len(self.recorded) < 5)
    def ask(self, effect: types.EffectContract) -> None:
        """A step is dispatched to the pool."""
        asked = attempt(len(self.asked) + 1, effect=effect, now_us=self.now_us)
        key = key_of(ref_of(asked))
        self.asked[key] = asked
        self.loop.run_until_complete(self._take_up(key, adopt=False))

    @rule(data=st.data())
    @precondition(lambda self: self._pending())
    def take_back(self, data: st.DataObject) -> None:
        """The turn was cancelled."""
        key = data.draw(st.sampled_from(self._pending()))
        self._call(self.tasks[key].cancel, STOPPED)
        self.over.add(key)

    @rule(data=st.data())
    @precondition(lambda self: self._pending())
    def take_over(self, data: st.DataObject) -> None:
        """The session is folded anew: the attempt is let go and adopted, as by another owner."""
        key = data.draw(st.sampled_from(self._pending()))
        self.tasks[key].cancel()
        self.loop.run_until_complete(self._take_up(key, adopt=True))

    @rule()
    @precondition(lambda self: set(self.results) - self.recorded)
    def record(self) -> None:
        """Results that wait for it are durable now."""
        for key in sorted(set(self.results) - self.recorded):
            told = self.results[key].recorded
            self.recorded.add(key)
            if told is not None:
                told(True)

    # What workers do

    @rule(name=st.sampled_from(NAMES), restart=st.booleans())
    def connect(self, name: str, restart: bool) -> None:
        """A new stream, perhaps of a new process."""
        worker = self.workers[name]
        if restart:
            worker.instance += 1
            worker.runs.clear()
            worker.done.clear()
        worker.stream = []
        worker.send = worker.stream.append
        hello = pb.Hello(
            worker=name, pool="gpu", capacity=worker.capacity, instance=str(worker.instance),
            running=[ref_of(self.asked[key]) for key in sorted(worker.runs | worker.done)],
        )  # fmt: skip
        worker.at = self._call(self.hub.pools.connections.connect, hello, worker.send)
        for key in sorted(worker.done):
            self._tell(worker, key)

    @rule(name=st.sampled_from(NAMES))
    @precondition(lambda self: any(w.open for w in self.workers.values()))
    def disconnect(self, name: str) -> None:
        """The stream breaks; what was on its way is lost."""
        worker = self.workers[name]
        if worker.open:
            assert worker.at is not None
            self._call(self.hub.pools.connections.disconnect, worker.at, worker.send)
            worker.stream = None

    @rule(name=st.sampled_from(NAMES), count=st.integers(1, 4))
    def read(self, name: str, count: int) -> None:
        """The worker reads what it was told."""
        for _ in range(count):
            self._read(self.workers[name])

    @rule(name=st.sampled_from(NAMES))
    def beat(self, name: str) -> None:
        """A heartbeat."""
        self._beat(self.workers[name])

    @rule(name=st.sampled_from(NAMES))
    def finish(self, name: str) -> None:
        """What it performs ends, and is told."""
        worker = self.workers[name]
        for key in sorted(worker.runs):
            worker.runs.discard(key)
            worker.done.add(key)
            self._tell(worker, key)

    @rule(seconds=st.sampled_from((0.5, 1.0, 2.9, 4.0, 14.0, 61.0)))
    def time(self, seconds: float) -> None:
        """It passes, and nobody beats."""
        self._pass(seconds)

    @invariant()
    def who_asked_knows_all(self) -> None:
        """Every task that is done came to a result, or was lost."""
        for key, task in self.tasks.items():
            if not task.done() or key in self.results or key in self.over:
                continue
            if isinstance(task.exception(), AttemptLost):
                self.over.add(key)
                continue
            result = task.result()
            if result.status == ev.STEP_STATUS_SUCCEEDED:
                assert key in self.started, f"{key} succeeded and was never started"
                assert result.output_json == f'"{key[2]}"'
                self.results[key] = result
            else:
                self.over.add(key)

    def teardown(self) -> None:
        """Workers come back and go on for as long as any deadline: then nothing waits, and nothing is held."""
        try:
            for name in NAMES:
                self.connect(name, False)
            for _ in range(75):
                self._pass(1.0)
                for worker in self.workers.values():
                    if not worker.open:
                        self.connect(worker.name, False)
                    while self._read(worker):
                        pass
                    self.finish(worker.name)
                    self._beat(worker)
                    for key in sorted(worker.done):
                        self._tell(worker, key)
                self.who_asked_knows_all()
                self.record()
            assert self._pending() == [], "somebody waits for ever"
            for worker in self.workers.values():
                assert not worker.done, f"{worker.name} was never answered: {worker.done}"
                assert worker.at is not None
                assert not worker.at.held, f"places leak: {worker.at.held}"
            for key in self.started:
                assert key in self.results or key in self.over
        finally:
            for task in self.tasks.values():
                task.cancel()
            self.loop.run_until_complete(rounds())
            self.loop.close()

    # How

    @property
    def now_us(self) -> int:
        """Where the clock stands."""
        return NOW_US + int(self.elapsed * US)

    def _pending(self) -> list[Key]:
        return sorted(key for key, task in self.tasks.items() if not task.done())

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """In the loop, and then what follows."""

        async def call() -> Any:
            answer = function(*arguments)
            await rounds()
            return answer

        return self.loop.run_until_complete(call())

    async def _take_up(self, key: Key, *, adopt: bool) -> None:
        await rounds()
        ask = self.hub.adopt if adopt else self.hub.run
        self.tasks[key] = await ask(self.asked[key])

    def _pass(self, seconds: float) -> None:
        async def moved() -> None:
            self.hub.clock.advance(seconds)
            await rounds()

        self.elapsed += seconds
        self.loop.run_until_complete(moved())

    def _read(self, worker: Process) -> bool:
        if not worker.stream:
            return False
        told = worker.stream.pop(0)
        match told.WhichOneof("message"):
            case "lease":
                self._leased(worker, told.lease)
            case "cancel":
                key = key_of(told.cancel.ref)
                if key in worker.runs:
                    worker.runs.discard(key)
                    worker.done.add(key)
                    self._tell(worker, key)
            case "ack":
                key = key_of(told.ack.ref)
                assert not told.ack.accepted or key in self.recorded, f"{key} is acknowledged too early"
                worker.done.discard(key)
            case "leaving":
                worker.stream = None
            case _:
                pass
        return True

    def _leased(self, worker: Process, lease: pb.Lease) -> None:
        key = key_of(lease.ref)
        if key in worker.runs | worker.done:
            return
        assert key not in self.started, f"{key} is started by {self.started.get(key)} and by {worker.name}"
        if len(worker.runs) < worker.capacity:
            self.started[key] = worker.name
            worker.runs.add(key)
        elif worker.open:
            assert worker.at is not None
            self._call(self.hub.pools.connections.decline, worker.at, lease.ref, "full")

    def _beat(self, worker: Process) -> None:
        if worker.open and worker.at is not None:
            held = [ref_of(self.asked[key]) for key in sorted(worker.runs | worker.done)]
            self._call(self.hub.pools.connections.heartbeat, worker.at, held)

    def _tell(self, worker: Process, key: Key) -> None:
        if worker.open and worker.at is not None:
            self._call(
                self.hub.pools.connections.result, worker.at, ref_of(self.asked[key]), good(f'"{key[2]}"')
            )


Pools.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestPools = pytest.mark.requirement("R10", "B1")(pytest.mark.timeout(300)(Pools.TestCase))
