"""Whether a long turn grows in proportion: a `react` turn of 200 steps against one of 20, side by side in one run.

    python -m bench.growth [--rounds 3]

JSON lines: journal bytes and events per step, time per step, and bytes of prompt sent per turn (which grows with the square: a
model reads all of the conversation at each call, whoever runs it). Then the ratio of 200 to 20 per step; goal: at most 1.2.
"""

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import asyncpg
from xenocomm import Client

from bench.modelled import server_with

SIZES = (20, 200)
GOAL = 1.2


async def turn(kfm: Client, database: Any, steps: int) -> dict[str, float]:
    """One turn of so many steps: half of them model calls, half tools."""
    begun = time.monotonic()
    done = await kfm.turns.run(
        "Go on", personality=f"loop{steps}", limits={"max_steps": 1000, "max_model_calls": 500}
    )
    took = time.monotonic() - begun
    row = await database.fetchrow(
        "select count(*) as events, sum(length(envelope)) as bytes from journal where turn_id = $1",
        done.turn_id,
    )
    count = len(done.steps)
    return {
        "steps": count,
        "ms_per_step": took * 1000 / count,
        "bytes_per_step": row["bytes"] / count,
        "events_per_step": row["events"] / count,
    }


async def run(endpoint: str, database_url: str, rounds: int) -> None:
    """Rounds of both sizes, and what they come to."""
    database = await asyncpg.connect(database_url)
    found: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
    async with Client(endpoint, timeout=300) as kfm:
        await turn(kfm, database, SIZES[0])
        for _ in range(rounds):
            for size in SIZES:
                found[size].append(await turn(kfm, database, size))
    await database.close()
    medians = {
        size: {key: statistics.median(one[key] for one in all_of) for key in all_of[0]}
        for size, all_of in found.items()
    }
    for size, values in medians.items():
        print(json.dumps({"name": f"react-{size}", **{k: round(v, 2) for k, v in values.items()}}))
    for key in ("bytes_per_step", "ms_per_step"):
        ratio = medians[SIZES[1]][key] / medians[SIZES[0]][key]
        print(
            json.dumps(
                {
                    "goal": f"{key}, 200 against 20",
                    "wanted": GOAL,
                    "value": round(ratio, 2),
                    "met": ratio <= GOAL,
                }
            )
        )


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    # A turn of 20 steps: nine or ten calls, a model step before each, and the last word.
    with server_with({f"loop{size}": f"loop-{size // 2}" for size in SIZES}) as (server, _):
        asyncio.run(run(server.grpc, server.database(), given.rounds))


if __name__ == "__main__":
    main()
