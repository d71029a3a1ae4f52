"""Calls to the KFM server: the SDK's transport over a real channel, to a server that may come, go and move."""

from collections.abc import Callable
from typing import Any

from xenocomm import Client
from xenocomm.failures import ConnectFailed
from xenocomm.handle import TurnHandle

CALL_S = 10.0
"""Seconds that a call may take with its retries, beside what it was asked to wait."""
_RETRIES = 2


class Gateway:
    """One connection, made when it is first needed and made anew when the server is found elsewhere."""

    def __init__(self, find: Callable[[], str], token: str = "") -> None:
        """`find` answers where the server should be now, as `host:port`."""
        self._find = find
        self._token = token
        self._client: Client | None = None

    @property
    def endpoint(self) -> str:
        """Where the server was last looked for."""
        return self._client.endpoint if self._client else self._find()

    async def call(self, rpc: str, request: Any, *, longest: float = 0.0) -> Any:
        """Make a unary call with a protobuf request, under the same key until it is answered. XenocommError.

        `longest` are the seconds that the call itself may wait.
        """
        fields = {descriptor.name: value for descriptor, value in request.ListFields()}
        try:
            return await self._call(rpc, fields, longest)
        except ConnectFailed:
            if self._find() == self.endpoint:
                raise
            await self.close()
            return await self._call(rpc, fields, longest)

    def turn(self, turn_id: str) -> TurnHandle:
        """A handle on a turn, for watching it."""
        return self._connected().turns.attach(turn_id)

    async def close(self) -> None:
        """Close the connection. The next call opens another."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _call(self, rpc: str, fields: dict[str, Any], longest: float) -> Any:
        transport = getattr(self._connected(), "_transport")  # noqa: B009
        return await transport.call(rpc, fields, timeout=CALL_S + longest)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client(self._find(), self._token, timeout=CALL_S, retries=_RETRIES)
        return self._client
