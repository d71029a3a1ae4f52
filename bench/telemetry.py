"""What telemetry costs: turns a second with traces off, sampled and on, interleaved in one run.

    python -m bench.telemetry [--seconds 1.5] [--rounds 5] [--conc 1,16,64]

Three servers, each with a Postgres of its own; the spans go to one collector in a process of its own.
Prints one JSON line per measurement, then the ratios to the server without telemetry.
"""

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack

from bench import report
from bench.run import measure, warn
from bench.systems import Bench, Server, System, scratch

KINDS = {"off": "", "sampled": "0.1", "on": "1"}
"""Share of the turns that are traced; empty is no telemetry at all."""


def start(bench: Bench, kind: str, endpoint: str) -> System:
    """A server of one kind, and its client."""
    home = bench.home / kind
    home.mkdir()
    home.chmod(0o755)
    ratio = KINDS[kind]
    extra = {"KFM_OTLP_ENDPOINT": endpoint, "KFM_TELEMETRY_SAMPLE_RATIO": ratio} if ratio else {}
    server = Server(home, **extra)
    bench.child(server)
    client = bench.client(kind, [sys.executable, "-m", "bench.clients.kfm", server.grpc, "calculator"])
    return System(kind, client, [client.pid, server.pid])


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a window")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each server at each concurrency")
    parser.add_argument("--conc", default="1,16,64", help="comma list of concurrencies")
    options = parser.parse_args()
    measured: dict[report.Key, list[report.Sample]] = {}
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(scratch()), stack)
        taker = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "bench.collector"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert taker.stdin is not None and taker.stdout is not None
        stack.callback(taker.stdin.close)
        endpoint = f"http://127.0.0.1:{taker.stdout.readline().strip()}"
        systems = [start(bench, kind, endpoint) for kind in KINDS]
        for number in range(options.rounds):
            for conc in map(int, options.conc.split(",")):
                for system in systems:
                    sample = measure(system, conc, options.seconds)
                    measured.setdefault((system.name, conc), []).append(sample)
            warn(f"round {number + 1} of {options.rounds} done")
        taker.stdin.write("\n")
        taker.stdin.flush()
        spans = int(taker.stdout.readline())
    for key, samples in measured.items():
        print(report.line(key, samples), flush=True)
    print(json.dumps({"spans": spans}))
    for (kind, conc), samples in measured.items():
        if kind != "off":
            plain = measured["off", conc]
            rate = report.median(samples, "rate") / report.median(plain, "rate")
            cpu = report.median(samples, "cpu_us") / report.median(plain, "cpu_us")
            print(
                f"telemetry {kind} at {conc}: {rate:.3f} of the turns a second, {cpu:.3f} of the CPU per turn"
            )


if __name__ == "__main__":
    main()
