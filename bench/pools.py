"""What a pool costs: the same turn of three IDEMPOTENT steps, performed in the server and by a worker process, in one run.

Usage: python -m bench.pools [--rounds N] [--seconds S]

`local` runs its steps in the server, `worker` on `kfm worker` over WorkerService, and `bus`, when KFM_IGGY_ADDRESS and the rest of
KFM_IGGY_* name a broker, on `kfm worker --bus`: every dispatch and every result crosses the broker. Prints a JSON line for each way and concurrency,
then the ratios. The journal's and the client's part is the same in all of them.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.processes import Child, Missing, environment
from bench.report import Sample
from bench.run import measure
from bench.systems import Bench, Server, System, scratch

CONCURRENCIES = (1, 16)
KFM = Path(sys.executable).with_name("kfm")


def broker() -> dict[str, str]:
    """Where the broker is, as the environment of this process says; empty if there is none."""
    if not os.environ.get("KFM_IGGY_ADDRESS"):
        return {}
    return {name: value for name, value in os.environ.items() if name.startswith("KFM_IGGY_")}


def worker(bench: Bench, server: Server, pool: str, tools: str, *more: str) -> Child:
    """A worker of a pool, that works for the server."""
    argv = [KFM, "worker", "--pool", pool, "--tools", f"bench.tools:{tools}", "--capacity", "64", *more]
    return bench.child(
        Child(argv, bench.home / f"worker-{pool}.log", env=environment(KFM_ENDPOINT=server.grpc, **broker()))
    )


def systems(bench: Bench) -> list[System]:
    """The ways, each with its own client; the CPU of the worker is counted to its way."""
    server = Server(bench.home, **broker(), **({"KFM_IGGY_POOLS": "bench-bus"} if broker() else {}))
    bench.child(server)
    ways = {"local": "bench_local", "worker": "bench_worker"}
    workers = {"worker": worker(bench, server, "bench", "WORKER")}
    if broker():
        ways["bus"] = "bench_bus"
        workers["bus"] = worker(bench, server, "bench-bus", "BUS", "--bus")
    for child in workers.values():
        child.said("worker_connected")
    found: list[System] = []
    for name, tool in ways.items():
        client = bench.client(name, [sys.executable, "-m", "bench.clients.kfm", server.grpc, tool], 90)
        pids = [client.pid, server.pid, *([workers[name].pid] if name in workers else [])]
        found.append(System(name, client, pids))
    return found


def run(rounds: int, seconds: float) -> None:
    """All ways, interleaved."""
    taken: dict[tuple[str, int], list[Sample]] = {}
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(scratch()), stack)
        for system in (found := systems(bench)):
            measure(system, 16, 1.0)
        for _ in range(rounds):
            for conc in CONCURRENCIES:
                for system in found:
                    taken.setdefault((system.name, conc), []).append(measure(system, conc, seconds))
    for (name, conc), samples in taken.items():
        rate, p50, p99, cpu = (statistics.median(column) for column in zip(*map(_row, samples), strict=True))
        row = {"name": name, "conc": conc, "rate": round(rate, 1), "p50_ms": round(p50, 2)}
        print(json.dumps(row | {"p99_ms": round(p99, 2), "cpu_us": round(cpu), "rounds": len(samples)}))
    for name in sorted({name for name, _ in taken} - {"local"}):
        for conc in CONCURRENCIES:
            pairs = list(zip(taken[name, conc], taken["local", conc], strict=True))
            rate = statistics.median(mine.rate / local.rate for mine, local in pairs)
            p50 = statistics.median(mine.p50_ms / local.p50_ms for mine, local in pairs)
            print(
                json.dumps(
                    {"ratio": f"{name}/local", "conc": conc, "rate": round(rate, 2), "p50": round(p50, 2)}
                )
            )


def _row(sample: Sample) -> Sequence[float]:
    return sample.rate, sample.p50_ms, sample.p99_ms, sample.cpu_us


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each window")
    given = parser.parse_args()
    try:
        run(given.rounds, given.seconds)
    except Missing as missing:
        sys.exit(f"bench: {missing}")


if __name__ == "__main__":
    main()
