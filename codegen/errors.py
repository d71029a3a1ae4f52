"""The error table and its exception classes as Python source, for the server and for the SDK."""

from codegen.schema import Schema, camel

_HEAD = '''"""{doc} Generated from kfm.error.v1.Reason; never edited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one reason looks at every door: statuses are numbers, `retryable` means the same request may succeed later."""

    reason: str
    number: int
    grpc_code: int
    http_status: int
    exit_code: int
    retryable: bool
    summary: str


class Violation(NamedTuple):
    """One broken rule: the field's path (`turn.input[1].text`), the rule's id and a sentence."""

    field: str
    rule: str
    message: str


ERRORS: dict[str, ErrorRow] = {{
{rows}
}}


class {base}(Exception):
    """A failure with a stable reason. The message defaults to the reason's summary; `retry_after_ms` says when to come back."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_INTERNAL"]

    def __init__(
        self,
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[tuple[str, str, str]] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        """All arguments are optional; metadata values are text."""
        self.message = message or self.row.summary
        self.metadata: dict[str, str] = dict(metadata or {{}})
        self.violations: tuple[Violation, ...] = tuple(Violation(*v) for v in violations)
        self.retry_after_ms = retry_after_ms
        super().__init__(self.message)

    @property
    def reason(self) -> str:
        """The reason's name, e.g. `REASON_TURN_NOT_FOUND`."""
        return self.row.reason

    @property
    def grpc_code(self) -> int:
        """The gRPC status code by number."""
        return self.row.grpc_code

    @property
    def http_status(self) -> int:
        """The HTTP status."""
        return self.row.http_status

    @property
    def exit_code(self) -> int:
        """The exit code of the command line."""
        return self.row.exit_code

    @property
    def retryable(self) -> bool:
        """The same request may succeed later."""
        return self.row.retryable

'''

_CLASS = '''
class {name}({base}):
    """{summary}"""

    row: ClassVar[ErrorRow] = ERRORS["{reason}"]

'''

_TAIL = '''
ERROR_CLASSES: dict[str, type[{base}]] = {{
{classes}
}}


def error_of(reason: str, message: str = "", *, metadata: Mapping[str, str] | None = None) -> {base}:
    """The error for a reason by name. {unknown}"""
    kind = ERROR_CLASSES.get(reason)
    if kind is None:
        return {fallback}(message, metadata={{**(metadata or {{}}), "reason": reason}})
    return kind(message, metadata=metadata)
'''


def errors_module(schema: Schema, *, doc: str, base: str) -> str:
    """Python source of the error table with one exception class per reason under `base`."""
    rows = list(schema.error_rows())
    table = "\n".join(
        f'    "{name}": ErrorRow("{name}", {number}, {o.grpc_code}, {o.http_status}, {o.exit_code}, '
        f"{o.retryable}, {o.summary!r}),"
        for name, number, o in rows
    )
    classes = "\n".join(
        _CLASS.format(name=camel(name), base=base, summary=o.summary, reason=name) for name, _, o in rows
    )
    return (
        _HEAD.format(doc=doc, base=base, rows=table)
        + classes
        + _TAIL.format(
            base=base,
            classes="\n".join(f'    "{name}": {camel(name)},' for name, _, _ in rows),
            fallback="Internal",
            unknown="A reason that this release does not know becomes Internal and stands in its metadata.",
        )
    )
