"""Watches a turn at the process that owns it: the client side of the one hop of ENGINE section 6."""

from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
from kfm.turn.v1 import turn_pb2 as api
from kfm.turn.v1 import turn_service_pb2 as pb
from kfm.turn.v1 import turn_service_pb2_grpc as rpc

from kfm_server.context import AT_OWNER
from kfm_server.ports.owners import OwnerAway

_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    # Processes of one test or machine restart on the same port: a channel must not share another's back-off.
    ("grpc.use_local_subchannel_pool", 1),
)


class OwnerWatch:
    """The port `Owners` over gRPC: one channel to each owner for as long as something is watched there."""

    def __init__(self, token: str = "") -> None:
        """`token` is what the doors of all processes on one database ask for."""
        self._metadata = ((AT_OWNER, "1"), *((("authorization", f"Bearer {token}"),) if token else ()))
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._uses: Counter[str] = Counter()

    async def watch(self, address: str, turn_id: str, after: int) -> AsyncGenerator[list[api.TurnUpdate]]:
        """As the port says."""
        async with self._channel(address) as channel:
            request = pb.WatchTurnRequest(turn_id=turn_id, after_sequence=after)
            stream = rpc.TurnServiceStub(channel).WatchTurn(request, metadata=self._metadata)
            try:
                async for response in stream:
                    updates = list(response.updates)
                    if updates and updates[-1].HasField("reconnect"):
                        raise OwnerAway(updates[-1].reconnect.reason)
                    yield updates
            except grpc.aio.AioRpcError as error:
                raise OwnerAway(f"{address}: {error.code().name}: {error.details()}") from None
            finally:
                stream.cancel()

    @asynccontextmanager
    async def _channel(self, address: str) -> AsyncGenerator[grpc.aio.Channel]:
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._uses[address] += 1
        try:
            yield channel
        finally:
            self._uses[address] -= 1
            if not self._uses[address]:
                del self._uses[address], self._channels[address]
                await channel.close()
