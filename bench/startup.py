"""Start to ready and idle CPU of `kfm serve` (PT9). Usage: python -m bench.startup [--starts N] [--idle SECONDS]

Prints a JSON line for the cold start (a fresh KFM_HOME: the database is made), one with the median of
the warm starts on the same home, and one for the idle CPU in percent of a core, Postgres included.
"""

import argparse
import json
import statistics
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
from kfm.event.v1 import turn_events_pb2 as events
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from bench.processes import Missing, cpu_seconds
from bench.systems import Server, scratch
from bench.work import finished, plan, request

GOAL_READY_S = 1.5
GOAL_SERVED_S = 3.0
GOAL_IDLE_PERCENT = 2.0


def _ready(address: str) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://{address}/health/ready", timeout=2) as reply:
                if reply.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.01)
    raise Missing(f"http://{address}/health/ready did not answer 200 within 30 s")


def _turn(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        last = None
        for response in rpc.TurnServiceStub(channel).RunTurn(request(plan("calculator")), timeout=30):
            last = finished(response) or last
    if last is None or last.outcome != events.OUTCOME_SUCCEEDED:
        raise Missing(f"the first turn did not succeed: {last}")


def start(home: Path) -> tuple[Server, dict[str, float]]:
    """Start a server; the times from its exec to its addresses, to readiness and to a served turn."""
    server = Server(home)
    times = {"endpoints_s": time.monotonic() - server.begun}
    try:
        _ready(server.endpoints["http"])
        times["ready_s"] = time.monotonic() - server.begun
        _turn(server.grpc)
    except BaseException:
        server.close()
        raise
    return server, times | {"served_s": time.monotonic() - server.begun}


def idle(server: Server, seconds: float) -> float:
    """CPU of the idle server and its Postgres, in percent of a core."""
    time.sleep(2)
    before, begun = cpu_seconds([server.pid]), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_seconds([server.pid]) - before) / (time.monotonic() - begun)


def _print(measure: str, **values: Any) -> None:
    print(json.dumps({"measure": measure, **values}), flush=True)


def main() -> None:
    """Start it cold, start it warm, let it idle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=3, help="warm starts")
    parser.add_argument("--idle", type=float, default=10, help="seconds of idling to measure")
    options = parser.parse_args()
    with scratch() as home:
        server, cold = start(home)
        server.close()
        _print("start, cold", **{k: round(v, 3) for k, v in cold.items()})
        warm: list[dict[str, float]] = []
        for number in range(options.starts):
            server, times = start(home)
            warm.append(times)
            if number < options.starts - 1:
                server.close()
        try:
            medians = {k: round(statistics.median(w[k] for w in warm), 3) for k in warm[0]}
            _print("start, warm", **medians, goal_ready_s=GOAL_READY_S, goal_served_s=GOAL_SERVED_S)
            percent = idle(server, options.idle)
            _print("idle", cpu_percent=round(percent, 2), goal_percent=GOAL_IDLE_PERCENT)
        finally:
            server.close()


if __name__ == "__main__":
    main()
