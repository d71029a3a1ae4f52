"""The seam between the server's script and what is spoken: one file for each provider's way to speak."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from kfm_server.ports.models import ModelRequest
from kfm_server.providers.player import Played


@dataclass
class BadRequest(Exception):
    """A call that is refused, as OpenAI's envelope says it; the others take the message alone."""

    message: str
    param: str | None = None
    code: str | None = None


class Dialect(Protocol):
    """How a provider speaks. What the server does is the same for all."""

    stream_type: str
    """Content type of a stream."""
    nonsense: bytes
    """A part of a stream that cannot be read."""
    fragment: bytes
    """How a whole answer begins."""

    def check(self, body: Any) -> dict[str, Any]:
        """The body of a call, checked. Raises BadRequest."""
        ...

    def request_of(self, call: dict[str, Any]) -> ModelRequest:
        """The call that a checked body makes."""
        ...

    def streams(self, call: dict[str, Any]) -> bool:
        """Whether it asks for a stream."""
        ...

    def whole(self, played: Played, call: dict[str, Any]) -> dict[str, Any]:
        """A whole answer."""
        ...

    def frames(self, played: Played, call: dict[str, Any]) -> Iterator[bytes]:
        """The same as a stream: its head, then a frame for each piece, then what ends it."""
        ...

    def error(self, status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
        """An error, where an answer was to be."""
        ...

    def error_frame(self, message: str, code: str) -> bytes:
        """An error within a stream."""
        ...
