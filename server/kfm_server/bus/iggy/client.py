"""One connection to Iggy: deadlines, typed errors, and a new connection after a broken one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from apache_iggy import (
    AutoLogin,
    IggyClient,
    QuicConfig,
    QuicReconnectionConfig,
    TcpConfig,
    TcpReconnectionConfig,
    WebSocketConfig,
    WebSocketReconnectionConfig,
)

from kfm_server.bus.iggy.wire import Malformed
from kfm_server.ports.broker import BrokerMisfit, BrokerUnavailable, MessageRefused
from kfm_server.ports.iggy_settings import IggySettings

T = TypeVar("T")

BYTES_PER_SECOND = 10_000_000
"""A call may take as much longer than the deadline as its payload takes at this rate."""
CLOSING = 0.3
"""Seconds that the wheel's threads need after their clients were dropped, before the process may exit."""
_HEARTBEAT = timedelta(seconds=1)
_RETRIES = 2
_INTERVAL = timedelta(seconds=0.2)


class NotThere(Exception):
    """What was named is gone: a stream, topic, partition or group, or this member's hold on it."""


class AlreadyThere(Exception):
    """What was to be made is there."""


_BROKEN = (
    "Disconnected", "Not connected", "Cannot establish connection", "Connection closed", "Client shutdown",
    "Stale client", "TCP error", "QUIC error", "WebSocket", "Cannot sed messages due to client", "Empty response",
    "Unauthenticated",
)  # fmt: skip
_TRANSIENT = ("Request transiently", "Request already applied")
_GONE = ("Resource with key", "Consumer group member", "Invalid offset", "Invalid identifier")
_NAMED = ("Stream with", "Topic with", "Partition with", "Consumer group with")
_REFUSED = (
    "Too big", "Empty message", "Invalid message", "Too many messages", "Invalid header", "Too small message",
    "Invalid key value",
)  # fmt: skip
_MISFIT = (
    "Invalid credentials", "Unauthorized", "Invalid personal access token", "Personal access token", "User inactive",
    "Incompatible binary protocol", "Invalid username", "Invalid password", "Invalid TLS", "Failed to add certificate",
    "Feature is unavailable", "Unsupported option", "Invalid option", "Invalid command", "Invalid format",
    "Invalid server address",
)  # fmt: skip


def classify(text: str) -> tuple[Exception, bool]:
    """What a text of the wheel means, and whether the connection must be made anew: the wheel has no error codes.

    Names within the texts are often empty, so only their beginnings count. What is not known may pass.
    """
    if text.startswith(_BROKEN):
        return BrokerUnavailable(text), True
    if text.startswith(_TRANSIENT):
        return BrokerUnavailable(text), False
    if text.startswith(_GONE) or (text.startswith(_NAMED) and "not found" in text):
        return NotThere(text), False
    if text.startswith(_NAMED) and "already exists" in text:
        return AlreadyThere(text), False
    if text.startswith(_REFUSED):
        return MessageRefused(text), False
    if text.startswith(_MISFIT):
        return BrokerMisfit(text), text.startswith("Invalid credentials")
    return BrokerUnavailable(text), True


class IggyConnection:
    """One client of the wheel, made when it is first needed. One request is on its way at a time: others wait.

    Of the wheel's traps: calls return futures and are awaited here only; retries are finite, so that no call hangs
    while the server is away; after a broken connection `connect` is called before anything else, which heals at
    once; an answer that does not come within the deadline costs the client, as it would hold up whatever follows.
    A cancelled call may still be carried out by the server, and the next one waits for it.
    """

    def __init__(self, settings: IggySettings) -> None:
        self._settings = settings
        self._client: IggyClient | None = None
        self._connected = False
        self._connecting = asyncio.Lock()

    async def call(self, do: Callable[[IggyClient], Awaitable[T]], size: int = 0) -> T:
        """Do one thing with the client. `size`: bytes that go or come, for the deadline.

        Raises BrokerUnavailable, BrokerMisfit, MessageRefused, NotThere, AlreadyThere.
        """
        used: IggyClient | None = None
        deadline = self._settings.deadline + size / BYTES_PER_SECOND
        try:
            async with asyncio.timeout(deadline):
                used = await self._ready()
                return await do(used)
        except TimeoutError:
            self._forget(used or self._client)
            raise BrokerUnavailable(f"{self._settings.address}: no answer within {deadline:g} s") from None
        except Malformed as error:
            raise BrokerMisfit(f"{self._settings.address}: {error}") from None
        except RuntimeError as error:
            found, broken = classify(str(error))
            if broken and used is self._client:
                self._connected = False
            raise found from error

    async def command(self, code: int, payload: bytes, decode: Callable[[bytes], T]) -> T:
        """Send a raw command and read its answer. Raises as `call`."""

        async def do(client: IggyClient) -> T:
            return decode(await client.send_binary_request(code, payload))

        return await self.call(do)

    def close(self) -> None:
        """Drop the client, which is all that closes a connection. Wait CLOSING before the process exits."""
        self._client, self._connected = None, False

    async def _ready(self) -> IggyClient:
        async with self._connecting:
            if self._client is None:
                self._client = _client_of(self._settings)
            if not self._connected:
                await self._client.connect()
                self._connected = True
            return self._client

    def _forget(self, client: IggyClient | None) -> None:
        if client is self._client:
            self.close()


@contextlib.asynccontextmanager
async def connection(settings: IggySettings) -> AsyncGenerator[IggyConnection]:
    """A connection for as long as the block runs."""
    made = IggyConnection(settings)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(CLOSING)


def _client_of(settings: IggySettings) -> IggyClient:
    """Raises BrokerMisfit for an address that is none."""
    login = AutoLogin.username_password(settings.username, settings.password.reveal())
    if settings.token:
        login = AutoLogin.personal_access_token(settings.token.reveal())
    domain = settings.tls_domain or settings.address.rpartition(":")[0].strip("[]")
    try:
        if settings.transport == "quic":
            return IggyClient(
                QuicConfig(
                    server_address=settings.address,
                    server_name=domain,
                    auto_login=login,
                    heartbeat_interval=_HEARTBEAT,
                    validate_certificate=True,
                    reconnection=QuicReconnectionConfig(
                        max_retries=_RETRIES, interval=_INTERVAL, reestablish_after=timedelta(0)
                    ),
                )
            )
        if settings.transport == "websocket":
            return IggyClient(
                WebSocketConfig(
                    server_address=settings.address,
                    auto_login=login,
                    heartbeat_interval=_HEARTBEAT,
                    tls_enabled=settings.tls,
                    tls_domain=domain,
                    tls_ca_file=settings.tls_ca_file or None,
                    tls_validate_certificate=True,
                    reconnection=WebSocketReconnectionConfig(
                        max_retries=_RETRIES, interval=_INTERVAL, reestablish_after=timedelta(0)
                    ),
                )
            )
        return IggyClient(
            TcpConfig(
                server_address=settings.address,
                auto_login=login,
                heartbeat_interval=_HEARTBEAT,
                tls_enabled=settings.tls,
                tls_domain=domain,
                tls_ca_file=settings.tls_ca_file or None,
                tls_validate_certificate=True,
                nodelay=True,
                reconnection=TcpReconnectionConfig(
                    max_retries=_RETRIES, interval=_INTERVAL, reestablish_after=timedelta(0)
                ),
            )
        )
    except ValueError as error:
        raise BrokerMisfit(f"iggy.address {settings.address!r}: {error}") from None
