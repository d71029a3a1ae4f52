"""The same turn on 1, 2 and 4 processes of one database, with and without a broker, in one run.

Usage: python -m bench.scale [--rounds N] [--seconds S] [--conc N]

Clients spread over all processes; a request reaches the owner of its session by the inbox when it comes in elsewhere.
With KFM_IGGY_ADDRESS and the rest of KFM_IGGY_* each number of processes is measured with the relay as well. Prints a
JSON line for each; the ratio is to one process without a broker. On a machine with few cores this shows what several
processes cost, not what they gain.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from bench.pools import broker
from bench.processes import Missing
from bench.report import Sample
from bench.run import measure
from bench.systems import Bench, Server, System, scratch

PROCESSES = (1, 2, 4)
SETTLE_SECONDS = 8.0
"""Until the partitions are shared evenly."""


def cluster(bench: Bench, count: int, over_broker: bool) -> System:
    """So many servers on one database, and one client that goes round them."""
    extra = broker() if over_broker else {}
    name = f"{count}{'-iggy' if over_broker else ''}"
    homes = [bench.home / f"{name}-{n}" for n in range(count)]
    servers: list[Server] = []
    for home in homes:
        home.mkdir()
        shared = {"KFM_DATABASE_URL": servers[0].database()} if servers else {}
        servers.append(Server(home, **extra, **shared))
        bench.child(servers[-1])
    time.sleep(SETTLE_SECONDS if count > 1 else 0.0)
    addresses = ",".join(server.grpc for server in servers)
    client = bench.client(name, [sys.executable, "-m", "bench.clients.kfm", addresses, "calculator"], 90)
    return System(name, client, [client.pid, *(server.pid for server in servers)])


def each() -> Iterator[tuple[int, bool]]:
    """Every set-up."""
    for over_broker in (False, True) if broker() else (False,):
        for count in PROCESSES:
            yield count, over_broker


def run(rounds: int, seconds: float, conc: int) -> None:
    """One set-up after the other, in rounds: they would take each other's processors."""
    taken: dict[tuple[int, bool], list[Sample]] = {}
    for _ in range(rounds):
        for count, over_broker in each():
            with ExitStack() as stack:
                bench = Bench(stack.enter_context(scratch()), stack)
                system = cluster(bench, count, over_broker)
                measure(system, conc, 1.0)
                taken.setdefault((count, over_broker), []).append(measure(system, conc, seconds))
    base = statistics.median(sample.rate for sample in taken[1, False])
    for (count, over_broker), samples in taken.items():
        rate = statistics.median(sample.rate for sample in samples)
        row = {
            "processes": count,
            "bus": "iggy" if over_broker else "postgres",
            "conc": conc,
            "rate": round(rate, 1),
            "p50_ms": round(statistics.median(sample.p50_ms for sample in samples), 2),
            "p99_ms": round(statistics.median(sample.p99_ms for sample in samples), 2),
            "cpu_us": round(statistics.median(sample.cpu_us for sample in samples)),
            "to_one": round(rate / base, 2),
        }
        print(json.dumps(row), flush=True)


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each window")
    parser.add_argument("--conc", type=int, default=16)
    given = parser.parse_args()
    try:
        run(given.rounds, given.seconds, given.conc)
    except Missing as missing:
        sys.exit(f"bench: {missing}")


if __name__ == "__main__":
    main()
