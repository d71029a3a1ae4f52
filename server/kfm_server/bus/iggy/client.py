"""One connection to Iggy: deadlines, typed errors, and a new connection after a broken one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import timedelta
from typing import Any, TypedDict, TypeVar

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
    """One client of the wheel, made when it is first needed. Requests go one after the other, in the order of calls.

    Of the wheel's traps: its calls return futures, and a cancelled one is carried out all the same, at any later
    time. So nothing of the wheel is ever cancelled here: who is cancelled leaves, and the next request waits for the
    answer. Retries are finite, so that no call hangs while the server is away; after a broken connection `connect`
    is called before anything else, which heals at once; an answer that does not come within the deadline costs the
    client, as it would hold up whatever follows.
    """

    def __init__(self, settings: IggySettings) -> None:
        self._settings = settings
        self._client: IggyClient | None = None
        self._connected = False
        self._turn = asyncio.Lock()
        self._on_its_way: asyncio.Future[Any] | None = None

    async def call(self, do: Callable[[IggyClient], Awaitable[T]], size: int = 0) -> T:
        """Do one thing with the client. `size`: bytes that go or come, for the deadline.

        Raises BrokerUnavailable, BrokerMisfit, MessageRefused, NotThere, AlreadyThere.
        """
        deadline = self._settings.deadline + size / BYTES_PER_SECOND
        mine = False
        try:
            async with asyncio.timeout(deadline), self._turn:
                mine = True
                if self._on_its_way is not None and not self._on_its_way.done():
                    await asyncio.wait([self._on_its_way])
                if self._client is None:
                    self._client = client_of(self._settings)
                if not self._connected:
                    await self._answer(self._client.connect())
                    self._connected = True
                return await self._answer(do(self._client))
        except TimeoutError:
            if mine:
                self.close()
            raise BrokerUnavailable(f"{self._settings.address}: no answer within {deadline:g} s") from None

    async def command(self, code: int, payload: bytes, decode: Callable[[bytes], T]) -> T:
        """Send a raw command and read its answer. Raises as `call`."""
        reply = await self.call(lambda c: c.send_binary_request(code, payload))
        try:
            return decode(reply)
        except Malformed as error:
            raise BrokerMisfit(f"{self._settings.address}: {error}") from None

    def close(self) -> None:
        """Drop the client, which is all that closes a connection. Wait CLOSING before the process exits."""
        self._client, self._connected, self._on_its_way = None, False, None

    async def _answer(self, asked: Awaitable[T]) -> T:
        """Wait for the wheel; a cancelled wait leaves the request on its way."""
        future = self._on_its_way = asyncio.ensure_future(asked)
        future.add_done_callback(_look_at)
        try:
            return await asyncio.shield(future)
        except RuntimeError as error:
            found, broken = classify(str(error))
            if broken:
                self._connected = False
            raise found from error


def _look_at(future: asyncio.Future[Any]) -> None:
    """What nobody waits for any more may fail unheard."""
    if not future.cancelled():
        future.exception()


@contextlib.asynccontextmanager
async def connection(settings: IggySettings) -> AsyncGenerator[IggyConnection]:
    """A connection for as long as the block runs."""
    made = IggyConnection(settings)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(CLOSING)


class _OverTls(TypedDict):
    """What the wheel's configurations of TCP and of WebSocket have in common."""

    server_address: str
    auto_login: AutoLogin
    heartbeat_interval: timedelta
    tls_enabled: bool
    tls_domain: str
    tls_ca_file: str | None
    tls_validate_certificate: bool


def client_of(settings: IggySettings) -> IggyClient:
    """Raises BrokerMisfit for an address that is none."""
    login = AutoLogin.username_password(settings.username, settings.password.reveal())
    if settings.token:
        login = AutoLogin.personal_access_token(settings.token.reveal())
    if settings.transport == "quic" and settings.tls_ca_file:
        raise BrokerMisfit(
            "iggy.tls_ca_file: QUIC knows the system's authorities only; SSL_CERT_FILE names others"
        )
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
        over_tls = _OverTls(
            server_address=settings.address,
            auto_login=login,
            heartbeat_interval=_HEARTBEAT,
            tls_enabled=settings.tls,
            tls_domain=domain,
            tls_ca_file=settings.tls_ca_file or None,
            tls_validate_certificate=True,
        )
        if settings.transport == "websocket":
            again = WebSocketReconnectionConfig(
                max_retries=_RETRIES, interval=_INTERVAL, reestablish_after=timedelta(0)
            )
            return IggyClient(WebSocketConfig(**over_tls, reconnection=again))
        again = TcpReconnectionConfig(
            max_retries=_RETRIES, interval=_INTERVAL, reestablish_after=timedelta(0)
        )
        return IggyClient(TcpConfig(**over_tls, nodelay=True, reconnection=again))
    except ValueError as error:
        raise BrokerMisfit(f"iggy.address {settings.address!r}: {error}") from None
