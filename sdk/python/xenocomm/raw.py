"""What came with a response: metadata, trailers, status."""

from collections.abc import Awaitable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from xenocomm.connection import Metadata

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RawCall:
    """One attempt of one RPC. `status` is gRPC's name of it, as `OK`; `seconds` is how long it took."""

    rpc: str
    attempt: int
    status: str
    details: str
    metadata: Metadata
    trailers: Metadata
    seconds: float


@dataclass(frozen=True, slots=True)
class Raw(Generic[T]):
    """A value, and every attempt of every RPC that was made for it, in order."""

    value: T
    calls: tuple[RawCall, ...]

    @property
    def metadata(self) -> Metadata:
        """What the server sent ahead of its last response."""
        return self.calls[-1].metadata if self.calls else ()

    @property
    def trailers(self) -> Metadata:
        """What the server sent after its last response."""
        return self.calls[-1].trailers if self.calls else ()

    @property
    def status(self) -> str:
        """The status of the last response."""
        return self.calls[-1].status if self.calls else ""


_calls: ContextVar[list[RawCall] | None] = ContextVar("xenocomm_raw_calls", default=None)


def recording() -> list[RawCall] | None:
    """Where calls are to be noted; None when nobody wants to know."""
    return _calls.get()


async def recorded(call: Awaitable[T]) -> Raw[T]:
    """The outcome of an awaitable with the unary calls that it made."""
    noted: list[RawCall] = []
    token = _calls.set(noted)
    try:
        value = await call
    finally:
        _calls.reset(token)
    return Raw(value, tuple(noted))


def texts(metadata: Any) -> Metadata:
    """gRPC's metadata without its binary values."""
    return tuple((str(key), value) for key, value in metadata or () if isinstance(value, str))
