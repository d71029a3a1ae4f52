"""The seam of calls of models from outside of turns: what a door may ask of the gateway (steps/gateway.py)."""

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kfm.type.v1 import type_pb2 as types

from kfm_server.models import ModelSpec
from kfm_server.ports.models import Embeddings, ModelDelta, ModelReply, ModelRequest, ProviderError


@dataclass(frozen=True, slots=True)
class Lost:
    """A call in vain, and what it has used if that is known."""

    model: str
    error: ProviderError
    usage: types.Usage | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply: of which configured model, what it cost, and what was asked in vain before."""

    reply: ModelReply
    model: str
    usage: types.Usage
    lost: tuple[Lost, ...] = ()


class KeyTaken(Exception):
    """The idempotency key was used with another request."""


class FlightsFull(Exception):
    """As many calls with idempotency keys are under way as may be."""


class ModelGateway(Protocol):
    """Each call goes along the model's chain once; nothing is retried. A failure's metadata has its `cost_nanos`."""

    async def generate(self, model: str, request: ModelRequest) -> Answer:
        """One reply. Calls with the same `request.key` are one. Raises LookupError, ProviderError, KeyTaken, FlightsFull."""
        ...

    def stream(self, model: str, request: ModelRequest) -> AsyncGenerator[ModelDelta | Answer]:
        """The reply in pieces, then whole; a call that fails after its first piece fails the stream. Raises as `generate`.

        Who meets a call with the same key gets its reply in one piece.
        """
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[Embeddings, types.Usage]:
        """A vector of each text, and what that cost. Raises LookupError, ProviderError."""
        ...


class BreakerState(Protocol):
    """What is told of the breaker of an endpoint."""

    @property
    def state(self) -> str:
        """`closed`, `half_open` or `open`."""
        ...

    @property
    def failures(self) -> int:
        """Calls that failed in a row."""
        ...


Listed = Callable[[], Sequence[tuple[ModelSpec, BreakerState]]]
"""The configured models, in order."""
