"""The seam of traces: spans, and where they go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened within a span."""

    at_us: int
    name: str
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of work that has ended. Ids are hex digits, times microseconds since 1970; `error` is empty if it went well."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_us: int
    end_us: int
    kind: Literal["internal", "server", "client"] = "internal"
    attributes: Mapping[str, Attribute] = field(default_factory=dict[str, Attribute])
    moments: Sequence[Moment] = ()
    error: str = ""


class TracesAway(Exception):
    """Whoever takes spans cannot be reached: try again later."""


class Tracing(Protocol):
    """Where spans go, and which."""

    @property
    def sample_ratio(self) -> float:
        """The share of traces that is kept where the caller has not decided, 0 to 1."""
        ...

    @property
    def capture_content(self) -> bool:
        """Spans may hold messages, arguments and outputs."""
        ...

    def put(self, span: Span) -> None:
        """Send it some time soon; never waits. Dropped, and counted, if too many wait."""
        ...

    async def send(self, spans: Sequence[Span]) -> None:
        """Send them now. Raises TracesAway; spans that are refused for good are dropped and counted."""
        ...
