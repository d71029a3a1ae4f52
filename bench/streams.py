"""From a model's chunk to the reader of the SDK (PT5): first delta, delay of each, and how many a second.

    python -m bench.streams [--conc 1,16,64] [--chunks 200]

Each stream is one turn with a model call, read by `deltas()` of one client process. Paced: 50 chunks a second on each
stream, which gives the delays; flooded: all at once, which gives the rate. The chunks carry the time of their birth, by a clock that
all processes share. `floor`: the same chunks read from the stub with bare aiohttp. JSON lines, then the goals.
"""

import argparse
import asyncio
import json
import time
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
from xenocomm import Client
from xenocomm.deltas import Piece

from bench.driver import percentile
from bench.modelled import server_with

APART_US = 20_000
GOALS = {"p50_ms": 1.0, "p99_ms": 10.0, "rate": 15_000.0}


class Seen:
    """Chunks as they arrive."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.first: list[float] = []

    def take(self, text: str, begun: float, first: bool) -> None:
        """A delta: one chunk or several that were joined on the way."""
        now = time.monotonic_ns()
        if first:
            self.first.append(time.monotonic() - begun)
        self.delays += [(now - int(born)) / 1e6 for born in text.split()]


async def through_kfm(kfm: Client, personality: str) -> AsyncGenerator[str]:
    """The deltas of a turn."""
    handle = await kfm.turns.start("Go", personality=personality, watch=True)
    async for delta in handle.text_deltas():
        if isinstance(delta, Piece):
            yield delta.text


async def bare(session: aiohttp.ClientSession, url: str, model: str) -> AsyncGenerator[str]:
    """The chunks of a call, read as plainly as can be."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Go"}]}
    async with session.post(f"{url}/chat/completions", json=body) as response:
        async for line in response.content:
            if line.startswith(b"data: {"):
                for choice in json.loads(line[6:])["choices"]:
                    if text := choice["delta"].get("content"):
                        yield text


async def measure(name: str, mode: str, conc: int, chunks: int, open_one: Any) -> dict[str, Any]:
    """All streams of one window."""
    seen = Seen()

    async def read() -> None:
        begun, first = time.monotonic(), True
        async for text in open_one():
            seen.take(text, begun, first)
            first = False

    begun = time.monotonic()
    async with asyncio.timeout(300):
        await asyncio.gather(*(read() for _ in range(conc)))
    took = time.monotonic() - begun
    found = {
        "name": name,
        "mode": mode,
        "conc": conc,
        "first_ms": round(percentile(seen.first, 50) * 1000, 2),
        "p50_ms": round(percentile(seen.delays, 50), 3),
        "p99_ms": round(percentile(seen.delays, 99), 3),
        "rate": round(len(seen.delays) / took),
        "lost": conc * chunks - len(seen.delays),
    }
    print(json.dumps(found), flush=True)
    return found


async def run(endpoint: str, url: str, concs: list[int], chunks: int) -> None:
    """Every window, ours and the floor's in turn."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    async with Client(endpoint, timeout=300) as kfm, aiohttp.ClientSession() as session:
        await measure("warm", "paced", 4, chunks, lambda: through_kfm(kfm, "paced"))
        for conc in concs:
            for mode, apart in (("paced", APART_US), ("flooded", 0)):
                model = f"stream-{chunks}-{apart}"
                for name, opened in (
                    ("kfm", lambda mode=mode: through_kfm(kfm, mode)),
                    ("floor", lambda model=model: bare(session, url, model)),
                ):
                    found[name, mode, conc] = await measure(name, mode, conc, chunks, opened)
    at = 16 if 16 in concs else concs[-1]
    paced, flood = found["kfm", "paced", at], found["kfm", "flooded", at]
    for key, value in (("p50_ms", paced["p50_ms"]), ("p99_ms", paced["p99_ms"]), ("rate", flood["rate"])):
        met = value >= GOALS[key] if key == "rate" else value <= GOALS[key]
        print(json.dumps({"goal": f"{key} at {at}", "wanted": GOALS[key], "value": value, "met": met}))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--conc", default="1,16,64")
    parser.add_argument("--chunks", type=int, default=200)
    given = parser.parse_args()
    models = {"paced": f"stream-{given.chunks}-{APART_US}", "flooded": f"stream-{given.chunks}-0"}
    with server_with(models) as (server, url):
        concs = [int(n) for n in given.conc.split(",")]
        asyncio.run(run(server.grpc, url, concs, given.chunks))


if __name__ == "__main__":
    main()
