"""Three times what the server takes (FT16), in one JSON line. Usage: python -m bench.overload [--seconds 10] [--calls 64]

The server lets CALLS calls and as many streams in at a time; a turn run to its end is a stream. 1x: as many callers, each with a turn after the other. 3x: three times as
many; who is refused comes back after the time that it was told. Goodput counts turns that ended well. Recovery: from
the moment the crowd stops until a turn is served no slower than the slowest one at 1x.
"""

import argparse
import asyncio
import json
import time
import urllib.request
from collections import Counter
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from kfm.event.v1 import turn_events_pb2 as events
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from bench.driver import percentile
from bench.systems import Server, scratch
from bench.work import finished, plan, request

GOAL_GOODPUT = 0.8
GOAL_RECOVERY_S = 5.0
GAUGES = ("kfm_calls_in_flight", "kfm_streams")
PATIENCE_S = 30.0
"""A call that has no answer by then hangs."""


class Crowd:
    """Callers of one server, and what became of their calls."""

    def __init__(self, stub: Any, body: str) -> None:
        self.taken: list[float] = []
        self.refused: Counter[str] = Counter()
        self.refusal_s: list[float] = []
        self._stub, self._body, self._over = stub, body, False

    async def one(self) -> float:
        """One turn to its end; its seconds."""
        begun, end = time.perf_counter(), None
        async for response in self._stub.RunTurn(request(self._body), timeout=PATIENCE_S):
            end = finished(response) or end
        if end is None or end.outcome != events.OUTCOME_SUCCEEDED:
            raise RuntimeError(f"the turn did not succeed: {end}")
        return time.perf_counter() - begun

    async def _caller(self) -> None:
        while not self._over:
            begun = time.perf_counter()
            try:
                self.taken.append(await self.one())
            except grpc.aio.AioRpcError as error:
                reason, wait = told(error)
                self.refused[reason] += 1
                self.refusal_s.append(time.perf_counter() - begun)
                await asyncio.sleep(wait)

    async def run(self, callers: int, seconds: float) -> float:
        """Turns a second that went well. Returns as soon as the last caller has its answer."""
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(self._caller(), name=f"caller {number}")
            await asyncio.sleep(seconds)
            rate = len(self.taken) / (time.perf_counter() - begun)
            self._over = True
        return rate


def told(error: grpc.aio.AioRpcError) -> tuple[str, float]:
    """The reason of a refusal, and the seconds after which to come back; `untyped` counts as a failure of the server."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                _ = detail.Unpack(info) or detail.Unpack(retry)
    reason = f"{error.code().name}: {info.reason or 'untyped'}"
    return reason, retry.retry_delay.ToMilliseconds() / 1000 or 0.25


def gauges(server: Server) -> dict[str, float]:
    """What the server counts against its limits."""
    with urllib.request.urlopen(f"http://{server.endpoints['http']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return {g: next(float(line.split()[1]) for line in lines if line.startswith(f"{g} ")) for g in GAUGES}


async def highest(server: Server, seen: dict[str, float]) -> None:
    """Keep the highest value of each gauge, until cancelled."""
    while True:
        for name, value in (await asyncio.to_thread(gauges, server)).items():
            seen[name] = max(seen.get(name, 0), value)
        await asyncio.sleep(0.2)


async def measure(server: Server, calls: int, seconds: float) -> dict[str, Any]:
    """1x, 3x, and after."""
    body, seen = plan("bench_effect"), dict[str, float]()
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stub = rpc.TurnServiceStub(channel)
        await Crowd(stub, body).run(calls, 1.0)
        one = Crowd(stub, body)
        peak = await one.run(calls, seconds)
        watching = asyncio.create_task(highest(server, seen), name="gauges")
        three = Crowd(stub, body)
        goodput = await three.run(3 * calls, seconds)
        watching.cancel()
        stopped, slowest = time.perf_counter(), max(one.taken)
        while await one.one() > slowest and time.perf_counter() - stopped < PATIENCE_S:
            pass
        recovered = time.perf_counter() - stopped
    return {
        "measure": "overload",
        "limit": calls,
        "seconds": seconds,
        "rate_1x": round(peak, 1),
        "rate_3x": round(goodput, 1),
        "goodput": round(goodput / peak, 3),
        "goal_goodput": GOAL_GOODPUT,
        "p99_ms_1x": round(percentile(one.taken, 99) * 1e3, 1),
        "p99_ms_3x": round(percentile(three.taken, 99) * 1e3, 1),
        "refused_1x": dict(one.refused),
        "refused_3x": dict(three.refused),
        "refusal_p99_ms": round(percentile(three.refusal_s, 99) * 1e3, 1) if three.refused else None,
        "highest": seen,
        "recovery_s": round(recovered, 3),
        "goal_recovery_s": GOAL_RECOVERY_S,
    }


def main() -> None:
    """Start a server with the limit, crowd it, stop it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--calls", type=int, default=64)
    options = parser.parse_args()
    with scratch() as home:
        limit = str(options.calls)
        server = Server(home, KFM_MAX_IN_FLIGHT=limit, KFM_MAX_STREAMS=limit)
        try:
            print(json.dumps(asyncio.run(measure(server, options.calls, options.seconds))), flush=True)
        finally:
            server.close()


if __name__ == "__main__":
    main()
