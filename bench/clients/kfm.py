"""Raw stub client of our server: RunTurn, read to the end. Usage: python -m bench.clients.kfm HOST:PORT TOOL"""

import asyncio
import sys

import grpc
from kfm.event.v1 import turn_events_pb2 as events
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from bench.driver import obey
from bench.work import finished, plan, request


async def main(endpoint: str, tool: str) -> None:
    """Run the closed loop against the server."""
    body = plan(tool)
    async with grpc.aio.insecure_channel(endpoint) as channel:
        await asyncio.wait_for(channel.channel_ready(), 15)
        stub = rpc.TurnServiceStub(channel)

        async def one(_: int) -> None:
            end = None
            async for response in stub.RunTurn(request(body)):
                end = finished(response) or end
            if end is None or end.outcome != events.OUTCOME_SUCCEEDED:
                raise RuntimeError(f"the turn did not succeed: {end}")

        await obey(one)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
