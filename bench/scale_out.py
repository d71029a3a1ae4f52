"""Load that one worker cannot carry, and an autoscaler that sees nothing but /metrics: does the lag recover?

    python -m bench.scale_out [--rate 20] [--most 4] [--within 60]

Turns of one step of 200 ms come in at an even rate; a worker has two places, so it does ten a second. The autoscaler
(`autoscaler.py`) starts a worker (`kfm worker`) while the oldest step has waited too long, and lets one go by SIGTERM, which drains
it, when nothing has waited for a while. The load ends when the lag has recovered under it; then the workers must be let go down to
one. Over WorkerService, and, when KFM_IGGY_ADDRESS and the rest of KFM_IGGY_* name a broker, over that as well (`kfm worker
--bus`). Prints a JSON line at each look, then one with the verdict; ends with 1 if the lag did not recover within so many seconds
after it was first too long, a turn failed, or workers stayed.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from kfm.event.v1 import turn_events_pb2 as events
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from bench.autoscaler import Autoscaler, Rule, Signal
from bench.iggy import own_stream
from bench.pools import broker, worker
from bench.processes import Child, Missing
from bench.systems import Bench, Server, scratch
from bench.work import finished, plan, request

CAPACITY = 2
"""Places of a worker."""
LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Way:
    """How steps reach their workers."""

    name: str
    pool: str
    tools: str
    tool: str
    signal: Signal
    options: tuple[str, ...] = ()


WORKER = Way(
    "worker",
    "bench",
    "SLOW_WORKER",
    "bench_slow_worker",
    Signal('kfm_pool_waiting{pool="bench"}', 'kfm_pool_oldest_seconds{pool="bench"}'),
)
BUS = Way(
    "bus",
    "bench-bus",
    "SLOW_BUS",
    "bench_slow_bus",
    Signal('kfm_bus_lag{group="pool-bench-bus"}', 'kfm_bus_oldest_seconds{group="pool-bench-bus"}'),
    ("--bus",),
)


@dataclass(slots=True)
class Load:
    """Turns at an even rate, whatever becomes of them, until it is told to stop."""

    stub: Any
    tool: str
    rate: float
    going: bool = True
    asked: int = 0
    done: int = 0
    failed: int = 0

    async def run(self) -> None:
        """Start them, and wait for all."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as turns:
            while self.going:
                turns.create_task(self._one())
                self.asked += 1
                await asyncio.sleep(max(0.0, began + self.asked / self.rate - time.monotonic()))

    async def _one(self) -> None:
        end = None
        async for response in self.stub.RunTurn(request(plan(self.tool, steps=1)), timeout=120):
            end = finished(response) or end
        self.done += 1
        if end is None or end.outcome != events.OUTCOME_SUCCEEDED:
            self.failed += 1


@contextmanager
def scaled(bench: Bench, server: Server, way: Way, rule: Rule) -> Generator[Autoscaler]:
    """The autoscaler of a way, with its first worker connected."""

    def start(number: int) -> Child:
        options = ("--name", f"{way.pool}-{number}", "--capacity", str(CAPACITY), *way.options)
        return worker(bench, server, way.pool, way.tools, *options)

    scaler = Autoscaler(server.endpoints["http"], way.signal, rule, start)
    try:
        scaler.more()
        scaler.workers[0].said("worker_connected")
        yield scaler
    finally:
        scaler.close()


async def simulate(server: Server, name: str, scaler: Autoscaler, load: Load, within: float) -> bool:
    """Load until the lag has recovered, then wait until the workers are gone; answers whether both came to be in time."""
    loading = asyncio.create_task(load.run(), name="load")
    begun = time.monotonic()
    recovered_s = let_go_s = -1.0
    ended = 0.0
    try:
        while let_go_s < 0 and time.monotonic() - (ended or scaler.late_since or begun) < within:
            seen = await asyncio.to_thread(scaler.look)
            now = time.monotonic()
            row = {"way": name, "t": round(now - begun, 1), "waiting": int(seen.waiting)}
            row |= {"oldest_s": round(seen.oldest, 2), "workers": len(scaler.workers)}
            print(json.dumps(row | {"leaving": len(scaler.leaving), "done": load.done}), flush=True)
            if load.going and scaler.recovered:
                recovered_s, load.going, ended = scaler.calm_since - scaler.late_since, False, now
            elif loading.done() and len(scaler.workers) == 1 and not scaler.leaving:
                let_go_s = now - ended
            else:
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        if not loading.done():
            loading.cancel()
            await asyncio.wait((loading,))
    good = min(recovered_s, let_go_s) >= 0 and not load.failed and load.done == load.asked
    verdict = {"way": name, "recovered": good, "lag_recovered_s": round(recovered_s, 1)}
    verdict |= {"let_go_s": round(let_go_s, 1), "within_s": within, "most_workers": scaler.most}
    print(json.dumps(verdict | {"turns": load.asked, "done": load.done, "failed": load.failed}), flush=True)
    return good


async def over(server: Server, way: Way, scaler: Autoscaler, rate: float, within: float) -> bool:
    """One way."""
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        load = Load(rpc.TurnServiceStub(channel), way.tool, rate)
        return await simulate(server, way.name, scaler, load, within)


def run(rate: float, rule: Rule, within: float) -> bool:
    """Every way that there is, one after the other; answers whether the lag recovered in all of them."""
    good = True
    for way in (WORKER, BUS) if broker() else (WORKER,):
        with ExitStack() as stack:
            # The lag of a group on the broker counts all steps that were published while nobody read for it.
            given = {**broker(), "KFM_IGGY_STREAM": stack.enter_context(own_stream())} if way is BUS else {}
            bench = Bench(stack.enter_context(scratch()), stack)
            server = Server(bench.home, **given, **({"KFM_IGGY_POOLS": BUS.pool} if given else {}))
            bench.child(server)
            scaler = stack.enter_context(scaled(bench, server, way, rule))
            good &= asyncio.run(over(server, way, scaler, rate, within))
    return good


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=20.0, help="turns a second")
    parser.add_argument("--most", type=int, default=4, help="workers")
    parser.add_argument("--within", type=float, default=60.0, help="seconds")
    given = parser.parse_args()
    try:
        sys.exit(0 if run(given.rate, Rule(most=given.most), given.within) else 1)
    except Missing as missing:
        sys.exit(f"bench: {missing}")


if __name__ == "__main__":
    main()
