"""`make bench`: our server, the bare floor and the peers, interleaved in one run. README.md here says how.

Prints one JSON line per measurement, then a JSON line per journal cost, then the ratios as text.
Exits with 0 whatever the ratios are; what could not take part is said on stderr and in the table.
"""

import argparse
import json
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import astuple

from bench import postgres, report
from bench.processes import Missing, cpu_seconds
from bench.systems import START, Bench, System, scratch

WARM = 0.4
COST_TURNS = {1: 200, 64: 1500}
COST_SAMPLES = 3


def warn(text: str) -> None:
    """Say something loudly, beside the results."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def measure(system: System, conc: int, seconds: float) -> report.Sample:
    """One window of one system. Raises Missing when the system breaks."""
    limit = 4 * seconds
    system.client.tell(do="window", conc=conc, warm=WARM, seconds=seconds, limit=limit)
    system.client.hear("begin", 60)
    before = cpu_seconds(system.pids)
    end = system.client.hear("end", limit + 60)
    cpu = cpu_seconds(system.pids) - before
    system.client.hear("idle", 120)
    ops = end["ops"]
    if not ops:
        raise Missing(f"completed nothing in {end['elapsed']:.1f} s at concurrency {conc}")
    return report.Sample(ops / end["elapsed"], end["p50_ms"], end["p99_ms"], cpu / ops * 1e6)


def cost(system: System, conc: int) -> dict[str, float]:
    """Commits, fsyncs, WAL bytes and event bytes of one turn, background work of the server included."""

    def run(total: int, callers: int) -> None:
        system.client.tell(do="count", conc=callers, total=total)
        system.client.hear("idle", 120)

    def snapshot() -> postgres.Counters:
        time.sleep(1.2)  # Postgres publishes a session's counts a second later, at its next transaction
        run(1, 1)
        return postgres.counters(system.database, system.event_bytes)

    turns, before = COST_TURNS[conc], snapshot()
    seen: list[list[float]] = []
    for _ in range(COST_SAMPLES):
        run(turns, conc)
        after = snapshot()
        seen.append([(b - a) / (turns + 1) for a, b in zip(astuple(before), astuple(after), strict=True)])
        before = after
    columns = list(zip(*seen, strict=True))
    fields = ("commits", "fsyncs", "wal_bytes", "event_bytes")
    medians = {f: round(statistics.median(c), 2) for f, c in zip(fields, columns, strict=True)}
    return medians | {"fsyncs_min": round(min(columns[1]), 2), "fsyncs_max": round(max(columns[1]), 2)}


def start(bench: Bench, names: list[str]) -> dict[str, System]:
    """Start what can be started."""
    running: dict[str, System] = {}
    for name in names:
        begun = time.monotonic()
        try:
            running[name] = START[name](bench)
            warn(f"{name} is up after {time.monotonic() - begun:.1f} s")
        except (Missing, OSError) as error:
            warn(f"SKIPPED {name}: {error}")
    if "kfm" in running and "floor" in running:
        ours, floors = running["kfm"].settings, running["floor"].settings
        different = {k: (ours[k], floors.get(k)) for k in ours if ours[k] != floors.get(k)}
        if different:
            warn(f"the Postgres settings of kfm and floor differ: {different}")
    return running


def rounds(running: dict[str, System], concs: list[int], seconds: float, count: int) -> None:
    """Visit every system at every concurrency, `count` times over, and print what came out."""
    measured: dict[report.Key, list[report.Sample]] = {}
    for number in range(count):
        for conc in concs:
            for name, system in list(running.items()):
                try:
                    measured.setdefault((name, conc), []).append(measure(system, conc, seconds))
                except (Missing, OSError) as error:
                    warn(f"DROPPED {name} in round {number + 1}: {error}")
                    del running[name]
        warn(f"round {number + 1} of {count} done")
    measured = {key: samples for key, samples in measured.items() if samples}
    for key, samples in measured.items():
        print(report.line(key, samples), flush=True)
    for name, system in running.items():
        for conc in COST_TURNS if system.database else ():
            try:
                print(json.dumps({"cost": name, "conc": conc, **cost(system, conc)}), flush=True)
            except (Missing, OSError) as error:
                warn(f"no journal cost of {name}: {error}")
    print("\n".join(["", *report.ratios(measured)]), flush=True)


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a window")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each system at each concurrency")
    parser.add_argument("--only", default=",".join(START), help="comma list of systems")
    parser.add_argument("--conc", default="1,16,64", help="comma list of concurrencies")
    parser.add_argument("--floor-uvloop", action="store_true", help="give the floor's server uvloop")
    options = parser.parse_args()
    names = [n for n in options.only.split(",") if n]
    if unknown := [n for n in names if n not in START]:
        parser.error(f"no such system: {', '.join(unknown)}; there are {', '.join(START)}")
    with ExitStack() as stack:
        home = stack.enter_context(scratch())
        running = start(Bench(home, stack, options.floor_uvloop), names)
        rounds(running, [int(c) for c in options.conc.split(",")], options.seconds, options.rounds)


if __name__ == "__main__":
    main()
