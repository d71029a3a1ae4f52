"""Client of the floor: submit, read five durable events. Usage: python -m bench.clients.floor HOST:PORT"""

import asyncio
import sys

import grpc
from kfm.event.v1 import envelope_pb2

from bench.driver import obey
from bench.floor_server import METHOD, SERVICE, STEPS


async def main(endpoint: str) -> None:
    """Run the closed loop against the floor."""
    async with grpc.aio.insecure_channel(endpoint) as channel:
        await asyncio.wait_for(channel.channel_ready(), 15)
        run = channel.unary_stream(
            f"/{SERVICE}/{METHOD}",
            request_serializer=envelope_pb2.Envelope.SerializeToString,
            response_deserializer=envelope_pb2.Envelope.FromString,
        )
        request = envelope_pb2.Envelope(event_id="e")

        async def one(_: int) -> None:
            events = 0
            async for _event in run(request):
                events += 1
            if events != STEPS + 2:
                raise RuntimeError(f"the floor answered {events} events")

        await obey(one)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
