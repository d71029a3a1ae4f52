"""One dispatch of a step over each bus, and the bare bus in the same run (N3). Goal: less than twice the bare bus.

    python -m bench.dispatch [--rounds 5] [--turns 40]

Ours, from the commit of the step's StepEvent in the journal (Postgres' own stamp of the commit, taken before it is flushed) to the call
of the tool (its own stamp): `local` in the server, so what the flush and the engine take without any bus; `worker` on `kfm worker` over
WorkerService; `bus`, when KFM_IGGY_ADDRESS and the rest of KFM_IGGY_* name a broker, on `kfm worker --bus`, through relay and topic.
`wakeup` is how processes wake each other on bus_postgres (`journal/wakeups.py`), from `send` to the other's callback.

Bare, one after the other: `notify`: pg_notify on one asyncpg connection, until another hears of it; `notify-durable`: a row is committed, its
reader notified, and reads it, from the commit's stamp to the row (the least that a bus over Postgres which loses nothing can do);
`iggy`: the SDK's send, to a reader that polls as fast as it goes, on a topic as durable as ours; `iggy-durable`: a row is committed, then sent so,
from the commit's stamp to the reader (the least that an outbox over Iggy which loses nothing can do). One caller, idle machine, one Postgres
for all; rounds visit every way. JSON lines in milliseconds, then the ratios of the medians.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
import grpc
from kfm.event.v1 import turn_events_pb2 as events
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.turn.v1 import turn_service_pb2_grpc as rpc
from kfm_server.journal.wakeups import Wakeups

from bench.driver import percentile
from bench.iggy import Raw, own_stream
from bench.pools import broker, worker
from bench.processes import Missing
from bench.systems import Bench, Server, scratch
from bench.work import finished, plan, request

GOAL = 2.0
PAIRS = (
    ("worker", "notify"),
    ("worker", "notify-durable"),
    ("wakeup", "notify"),
    ("bus", "iggy"),
    ("bus", "iggy-durable"),
)
BODY = b"x" * 450
"""As long as a dispatch."""
SAMPLES = 100
WAIT_SECONDS = 10.0
Way = Callable[[int], Awaitable[list[float]]]
"""So many samples, in seconds."""
STEPS = """
select turn_id, topic, envelope, pg_xact_commit_timestamp(xmin) as committed from kfm.journal
where turn_id = any($1) and topic in ('agent.steps.requests', 'agent.steps.results')
"""


def dispatched(stub: Any, database: Any, tool: str) -> Way:
    """Turns of three steps, one after the other; from each commit to its tool's start."""

    async def one() -> str:
        turn_id = ""
        end = None
        async for response in stub.RunTurn(request(plan(tool)), timeout=60):
            turn_id = response.updates[0].event.turn_id if response.updates else turn_id
            end = finished(response) or end
        if end is None or end.outcome != events.OUTCOME_SUCCEEDED:
            raise Missing(f"the turn did not succeed: {end}")
        return turn_id

    async def many(turns: int) -> list[float]:
        ids = [await one() for _ in range(turns)]
        committed: dict[tuple[str, str], float] = {}
        started: dict[tuple[str, str], float] = {}
        for row in await database.fetch(STEPS, ids):
            value = Envelope.FromString(row["envelope"]).payload.value
            if row["topic"] == "agent.steps.requests":
                key = row["turn_id"], events.StepEvent.FromString(value).step_key
                committed[key] = row["committed"].timestamp()
            else:
                result = events.StepResultEvent.FromString(value)
                started[row["turn_id"], result.step_key] = json.loads(result.output_json)["started_us"] / 1e6
        return [started[key] - at for key, at in committed.items()]

    return many


class Heard:
    """Answers with what came on a channel, and when."""

    def __init__(self) -> None:
        self._came: asyncio.Future[float] | None = None

    def __call__(self, *_: object) -> None:
        """It came."""
        if self._came is not None and not self._came.done():
            self._came.set_result(time.perf_counter())

    async def after(self, send: Callable[[], Awaitable[object] | None]) -> float:
        """Seconds from before the sending until it was heard."""
        self._came = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        sent = send()
        if sent is not None:
            await sent
        return await asyncio.wait_for(self._came, WAIT_SECONDS) - begun


def repeated(once: Callable[[], Awaitable[float]]) -> Way:
    """A bare bus: one after the other."""

    async def many(_: int) -> list[float]:
        return [await once() for _ in range(SAMPLES)]

    return many


@asynccontextmanager
async def bare_postgres(url: str) -> AsyncGenerator[dict[str, Way]]:
    """Two connections, and two ends of our own wake-ups."""
    sender, hearer = await asyncpg.connect(url), await asyncpg.connect(url)
    heard, woken = Heard(), Heard()
    await hearer.add_listener("bench_raw", heard)
    await sender.execute("create table if not exists bench_raw (id serial primary key, body bytea)")

    async def durable() -> float:
        id = await sender.fetchval("insert into bench_raw (body) values ($1) returning id", BODY)
        await heard.after(lambda: sender.execute("select pg_notify('bench_raw', '')"))
        row = "select body, pg_xact_commit_timestamp(xmin) as committed from bench_raw where id = $1"
        committed: datetime = (await hearer.fetchrow(row, id))["committed"]
        return time.time() - committed.timestamp()

    async with (
        Wakeups.open(url, "bench_wakeup") as sending,
        Wakeups.open(url, "bench_wakeup") as waking,
    ):
        waking.on_wake(woken)
        await heard.after(lambda: sender.execute("select pg_notify('bench_raw', '')"))
        await asyncio.sleep(1)  # both ends are connected
        yield {
            "notify": repeated(
                lambda: heard.after(lambda: sender.execute("select pg_notify('bench_raw', '')"))
            ),
            "notify-durable": repeated(durable),
            "wakeup": repeated(lambda: woken.after(sending.send)),
        }
    await sender.close()
    await hearer.close()


async def sent_from(database: Any, raw: Raw) -> float:
    """Commit a row, send it over the bare SDK, and see it at the reader: seconds from the commit's stamp."""
    id = await database.fetchval("insert into bench_raw (body) values ($1) returning id", BODY)
    await raw.once(BODY)
    seen = time.time()
    row = "select pg_xact_commit_timestamp(xmin) as committed from bench_raw where id = $1"
    committed: datetime = (await database.fetchrow(row, id))["committed"]
    return seen - committed.timestamp()


async def measure(server: Server, url: str, tools: dict[str, str], rounds: int, turns: int) -> None:
    """Rounds of all ways, and what they come to."""
    taken: dict[str, list[list[float]]] = {}
    async with AsyncExitStack() as stack:
        stub = rpc.TurnServiceStub(await stack.enter_async_context(grpc.aio.insecure_channel(server.grpc)))
        database = await asyncpg.connect(url)
        stack.push_async_callback(database.close)
        ways = {name: dispatched(stub, database, tool) for name, tool in tools.items()}
        ways |= await stack.enter_async_context(bare_postgres(url))
        if "bus" in tools:
            raw = await stack.enter_async_context(Raw.open())
            ways["iggy"] = repeated(lambda: raw.once(BODY))
            ways["iggy-durable"] = repeated(lambda: sent_from(database, raw))
        for way in ways.values():
            await way(5)
        for _ in range(rounds):
            for name, way in ways.items():
                taken.setdefault(name, []).append(await way(turns))
    for name, found in taken.items():
        every = [value for one in found for value in one]
        row = {"name": name, "p50_ms": _ms(every, 50), "p99_ms": _ms(every, 99), "samples": len(every)}
        print(json.dumps(row), flush=True)
    for ours, bare in PAIRS:
        if ours in taken and bare in taken:
            ratios = {
                f"p{percent}": statistics.median(
                    percentile(a, percent) / percentile(b, percent)
                    for a, b in zip(taken[ours], taken[bare], strict=True)
                )
                for percent in (50, 99)
            }
            row = {"ratio": f"{ours}/{bare}"} | {key: round(value, 2) for key, value in ratios.items()}
            print(json.dumps(row | {"goal": GOAL, "met": ratios["p50"] < GOAL}), flush=True)


def _ms(values: list[float], percent: float) -> float:
    return round(percentile(values, percent) * 1e3, 3)


def run(rounds: int, turns: int) -> None:
    """A Postgres that stamps commits, a server, its workers."""
    with ExitStack() as stack:
        given = {**broker(), "KFM_IGGY_STREAM": stack.enter_context(own_stream())} if broker() else {}
        bench = Bench(stack.enter_context(scratch()), stack)
        url = bench.cluster("dispatch", track_commit_timestamp="on").create("kfm")
        pools = {"KFM_IGGY_POOLS": "bench-bus"} if given else {}
        server = Server(bench.home, KFM_DATABASE_URL=url, **given, **pools)
        bench.child(server)
        tools = {"local": "bench_local", "worker": "bench_worker"}
        workers = [worker(bench, server, "bench", "WORKER")]
        if given:
            tools["bus"] = "bench_bus"
            workers.append(worker(bench, server, "bench-bus", "BUS", "--bus"))
        for child in workers:
            child.said("worker_connected")
        asyncio.run(measure(server, url, tools, rounds, turns))


def main() -> None:
    """The entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=40, help="of three steps, in each round and way")
    given = parser.parse_args()
    try:
        run(given.rounds, given.turns)
    except Missing as missing:
        sys.exit(f"bench: {missing}")


if __name__ == "__main__":
    main()
