"""Raw stub client of our server: RunTurn, read to the end. Usage: python -m bench.clients.kfm HOST:PORT[,..] TOOL"""

import asyncio
import itertools
import sys
from contextlib import AsyncExitStack

import grpc
from kfm.event.v1 import turn_events_pb2 as events
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from bench.driver import obey
from bench.work import finished, plan, request


async def main(endpoint: str, tool: str) -> None:
    """Run the closed loop against the server, or against several in turn."""
    body = plan(tool)
    async with AsyncExitStack() as stack:
        stubs: list[rpc.TurnServiceStub] = []
        for address in endpoint.split(","):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
            await asyncio.wait_for(channel.channel_ready(), 15)
            stubs.append(rpc.TurnServiceStub(channel))
        turns = itertools.cycle(stubs)

        async def one(_: int) -> None:
            end = None
            async for response in next(turns).RunTurn(request(body)):
                end = finished(response) or end
            if end is None or end.outcome != events.OUTCOME_SUCCEEDED:
                raise RuntimeError(f"the turn did not succeed: {end}")

        await obey(one)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
