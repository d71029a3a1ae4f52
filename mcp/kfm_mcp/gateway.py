"""Calls to the KFM server: the SDK's transport over a real channel, to a server that may come, go and move."""

from collections.abc import Callable
from typing import Any

from xenocomm.connection import Connection
from xenocomm.failures import ConnectFailed
from xenocomm.handle import TurnHandle
from xenocomm.transport import Options, Transport

CALL_S = 10.0
"""Seconds that a call may take with its retries, beside what it was asked to wait."""
_RETRIES = 2


class Gateway:
    """One connection, made when it is first needed and made anew when the server is found elsewhere."""

    def __init__(self, find: Callable[[], str], token: str = "", roots: bytes | None = None) -> None:
        """`find` answers where the server should be now, as `host:port`, or several with commas between; `roots` are the certificates of TLS, None is without."""
        self._find = find
        self._token = token
        self._roots = roots
        self._transport: Transport | None = None

    @property
    def endpoint(self) -> str:
        """Where the server was last looked for."""
        return self._transport.endpoint if self._transport else self._find()

    async def call(self, rpc: str, request: Any, *, longest: float = 0.0) -> Any:
        """Make a unary call with a protobuf request, under the same key until it is answered. XenocommError.

        `longest` are the seconds that the call itself may wait.
        """
        fields = {descriptor.name: value for descriptor, value in request.ListFields()}
        try:
            return await self._call(rpc, fields, longest)
        except ConnectFailed:
            if self._transport is None or self._find() == self._transport.connection.given:
                raise
            await self.close()
            return await self._call(rpc, fields, longest)

    def turn(self, turn_id: str) -> TurnHandle:
        """A handle on a turn, for watching it."""
        return TurnHandle(self._connected(), turn_id)

    async def close(self) -> None:
        """Close the connection. The next call opens another."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.close()

    async def _call(self, rpc: str, fields: dict[str, Any], longest: float) -> Any:
        return await self._connected().call(rpc, fields, timeout=CALL_S + longest)

    def _connected(self) -> Transport:
        if self._transport is None:
            connection = Connection(self._find(), self._token, self._roots)
            self._transport = Transport(connection, Options(CALL_S, _RETRIES))
        return self._transport
