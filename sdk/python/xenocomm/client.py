"""The client: one connection, and what can be asked over it."""

import os
from types import TracebackType

from xenocomm import arguments
from xenocomm._gen.types import GetServerInfoResponse
from xenocomm.dead_letters import DeadLetters
from xenocomm.transport import Transport
from xenocomm.turns import Turns

DEFAULT_ENDPOINT = "127.0.0.1:50051"


class Client:
    """A client of one server. Use it as `async with Client() as kfm:`, in one event loop.

    Nothing is sent before the first call. `kfm.turns` starts and finds turns; `kfm.dead_letters` is for operators.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 5,
    ) -> None:
        """Settings that are None come from KFM_ENDPOINT (else 127.0.0.1:50051) and KFM_TOKEN.

        `timeout` is the total of one call with all its retries, in seconds. `retries` bounds the attempts after the
        first while no server has ever answered: a refused connection shows within about three seconds, a host that
        answers nothing or a name that no resolver knows within about fifteen. InvalidArgument.
        """
        self.endpoint = arguments.endpoint(endpoint or os.environ.get("KFM_ENDPOINT") or DEFAULT_ENDPOINT)
        token = arguments.token(os.environ.get("KFM_TOKEN", "") if token is None else token)
        timeout = arguments.seconds("timeout", timeout, positive=True)
        self._transport = Transport(self.endpoint, token, timeout, retries)
        self.turns = Turns(self._transport)
        self.dead_letters = DeadLetters(self._transport)

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def server_info(self) -> GetServerInfoResponse:
        """Which release the server speaks and what it can do."""
        return GetServerInfoResponse.from_pb(await self._transport.call("AdminService.GetServerInfo", {}))

    async def close(self) -> None:
        """Close the connection; turns go on. The client cannot be used again: RuntimeError."""
        await self._transport.close()
