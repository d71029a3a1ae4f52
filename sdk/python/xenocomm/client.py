"""The client: one connection, and what can be asked over it."""

from collections.abc import Awaitable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from xenocomm import arguments, config
from xenocomm._gen.types import GetServerInfoResponse
from xenocomm.connection import Connection
from xenocomm.dead_letters import DeadLetters
from xenocomm.events import Events
from xenocomm.memory import Memory
from xenocomm.models import Models
from xenocomm.personalities import Personalities
from xenocomm.raw import Raw, recorded
from xenocomm.server import Server
from xenocomm.sessions import Sessions
from xenocomm.tracing import Spans
from xenocomm.transport import Options, Transport
from xenocomm.turns import Turns

T = TypeVar("T")


class Client:
    """A client of one server. Use it as `async with Client() as kfm:`, in one event loop.

    Nothing is sent before the first call. `kfm.turns` starts and finds turns, `kfm.sessions` has what was said,
    `kfm.personalities` who may answer, `kfm.memory` what they know, `kfm.models` what answers, `kfm.events` what happens anywhere; `kfm.server` and `kfm.dead_letters` are for
    operators.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        profile: str | None = None,
        tls_ca: str | None = None,
        timeout: float | None = None,
        retries: int | None = None,
        metadata: Mapping[str, str] | None = None,
        spans: bool = False,
        log_content: bool = False,
    ) -> None:
        """`endpoint` is `host:port`, or several with commas between: servers on one database. One of them is drawn; when it goes
        away, calls and streams go on at the next.

        Settings that are None come from the profile that is named here, else from KFM_ENDPOINT, KFM_TOKEN and KFM_TLS_CA,
        else from the profile that KFM_PROFILE names, else hold 127.0.0.1:50051, 30 s and 5. InvalidArgument.

        `tls_ca`: a file of certificates in PEM, or `system`; without it there is no TLS. `timeout` is the total of one call
        with all its retries, in seconds. `retries` bounds the attempts after the first, at each address, while no server has ever answered: a
        refused connection shows within about three seconds, a host that answers nothing or a name that no resolver knows
        within about fifteen. `metadata` is sent with every call. `spans` makes an OpenTelemetry span of every call but those that follow.
        `log_content` lets requests into the debug log of `xenocomm`, which otherwise holds names and numbers only.
        """
        given = {"endpoint": endpoint or None, "token": token, "tls_ca": tls_ca}
        found = config.load({**given, "timeout": timeout, "retries": retries}, profile)
        options = Options(
            found.timeout,
            found.retries,
            config.metadata(metadata or {}),
            Spans(found.endpoint) if spans else None,
            log_content,
        )
        self._over(Transport(Connection(found.endpoint, found.token, found.roots()), options))

    def _over(self, transport: Transport) -> None:
        self._transport = transport
        self.turns = Turns(transport)
        self.sessions = Sessions(transport)
        self.memory = Memory(transport)
        self.models = Models(transport)
        self.personalities = Personalities(transport)
        self.events = Events(transport)
        self.server = Server(transport)
        self.dead_letters = DeadLetters(transport)

    @property
    def endpoint(self) -> str:
        """`host:port` that calls go to now."""
        return self._transport.endpoint

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def with_options(
        self,
        *,
        timeout: float | None = None,
        retries: int | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> "Client":
        """A client over the same connection, with other options; `metadata` is sent besides what is sent already.

        Closing either closes both. InvalidArgument.
        """
        changed: dict[str, Any] = {}
        if timeout is not None:
            changed["timeout"] = arguments.seconds("timeout", timeout, positive=True)
        if retries is not None:
            changed["retries"] = config.retries(retries)
        if metadata is not None:
            more = dict(config.metadata(metadata))
            kept = tuple(pair for pair in self._transport.options.metadata if pair[0] not in more)
            changed["metadata"] = (*kept, *more.items())
        client = object.__new__(type(self))
        client._over(self._transport.having(**changed))
        return client

    async def with_raw(self, call: Awaitable[T]) -> Raw[T]:
        """What a call returns together with metadata, trailers and status of each of its attempts.

            raw = await kfm.with_raw(kfm.turns.get(turn_id))

        Only unary calls are noted.
        """
        return await recorded(call)

    async def server_info(self) -> GetServerInfoResponse:
        """`server.info()`: which release the server speaks and what it can do. Warns with VersionSkew."""
        return await self.server.info()

    async def close(self) -> None:
        """Close the connection; turns go on. The client cannot be used again: RuntimeError."""
        await self._transport.close()
