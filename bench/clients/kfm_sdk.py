"""SDK client of our server: start a turn, await its result. Usage: python -m bench.clients.kfm_sdk HOST:PORT TOOL"""

import asyncio
import sys

from xenocomm import Client, Part

from bench.driver import obey
from bench.work import plan


async def main(endpoint: str, tool: str) -> None:
    """Run the closed loop through the SDK."""
    body = Part(data_json=plan(tool))
    async with Client(endpoint=endpoint) as kfm:

        async def one(_: int) -> None:
            turn = await kfm.turns.start(body)
            await turn.result()

        await obey(one)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
