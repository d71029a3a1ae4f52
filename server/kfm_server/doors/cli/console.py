"""What all commands share: options, one client per command, output, exit codes."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    from xenocomm import Client, XenocommError


class Format(StrEnum):
    """How a command prints."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[
    Format | None, typer.Option("-o", "--output", help="table or json; a table on a terminal, else JSON.")
]
Endpoint = Annotated[
    str | None, typer.Option(help="host:port of the server; else KFM_ENDPOINT, else 127.0.0.1:50051.")
]
Token = Annotated[str | None, typer.Option(help="Bearer token; else KFM_TOKEN.")]
Key = Annotated[str, typer.Option("--key", help="Idempotency key; made up when absent.")]

UNREACHABLE = 9
INTERRUPTED = 130


def as_json(output: Format | None) -> bool:
    """Whether to print JSON: when asked to, or when nobody watches a terminal."""
    return output == Format.JSON or (output is None and not sys.stdout.isatty())


def seconds(text: str) -> float:
    """An option's value in seconds; BadParameter names the option unless it is a finite number from 0."""
    from xenocomm import errors
    from xenocomm.arguments import seconds as checked

    try:
        return checked("it", float(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number of seconds") from None
    except errors.InvalidArgument as wrong:
        raise typer.BadParameter(wrong.message) from None


def standard_input(hint: str) -> str:
    """All of standard input; BadParameter, for the option `hint`, if it is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as wrong:
        raise typer.BadParameter(
            f"standard input is not UTF-8 at byte {wrong.start}", param_hint=hint
        ) from None


def with_client(endpoint: str | None, token: str | None, body: "Callable[[Client], Awaitable[None]]") -> None:
    """Run `body` with a client; its failures are for `entry.run`."""
    from xenocomm import Client

    async def run() -> None:
        async with Client(endpoint, token) as client:
            await body(client)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def show_error(error: "XenocommError", json_wanted: bool) -> None:
    """One failure on stderr: a line with its violations and what to type next, or one JSON object."""
    from xenocomm import TurnNeedsPerson

    if json_wanted:
        _error_json(error.reason, error.message, error.metadata, error.violations, error.exit_code)
        return
    typer.echo(f"error: {clean(error.message)} [{clean(error.reason)}]", err=True)
    for violation in error.violations:
        if violation.message not in error.message:
            typer.echo(f"  {clean(violation.field)}: {clean(violation.message)} [{violation.rule}]", err=True)
    if isinstance(error, TurnNeedsPerson):
        typer.echo(f"  {command_for(error.verb, error.turn_id, error.step_key)}", err=True)


def refused(reason: str, message: str, exit_code: int, json_wanted: bool, field: str = "") -> None:
    """A failure that the command line itself found, in the form of all others; `field` is the option it lies in."""
    if json_wanted:
        violations = [Broken(field, "usage", message)] if field else []
        _error_json(reason, message, {}, violations, exit_code)
    else:
        typer.echo(f"error: {clean(message)}", err=True)


class Broken(NamedTuple):
    """One wrong option, shaped as the SDK's violations."""

    field: str
    rule: str
    message: str


def _error_json(
    reason: str, message: str, metadata: Mapping[str, str], violations: Sequence[Any], exit_code: int
) -> None:
    found = {
        "reason": reason,
        "message": message,
        "metadata": dict(metadata),
        "violations": [v._asdict() for v in violations],
        "exit_code": exit_code,
    }
    typer.echo(json.dumps({"error": found}, ensure_ascii=False), err=True)


def interrupted(turn_id: str, json_wanted: bool) -> None:
    """What Ctrl-C leaves behind, on stderr: the turn, which goes on, and how to come back to it or to end it."""
    follow, end = (f"kfm turn {verb} {turn_id}" for verb in ("tail", "cancel"))
    if json_wanted:
        told = {"turn_id": turn_id, "follow": follow, "cancel": end} if turn_id else {"list": "kfm turn list"}
        _error_json("REASON_UNSPECIFIED", "interrupted; the turn goes on", told, (), INTERRUPTED)
    elif turn_id:
        typer.echo(
            f"\ninterrupted; turn {turn_id} goes on\n  follow it: {follow}\n  end it:    {end}", err=True
        )
    else:
        typer.echo(
            "\ninterrupted; a turn may have been started by then\n  look for it: kfm turn list", err=True
        )


def command_for(verb: str, turn_id: str, step_key: str) -> str:
    """What to type to end a wait; upper case is to be filled in."""
    rest = {"answer": " JSON", "settle": " --as succeeded|failed|retry"}.get(verb, "")
    return " ".join(word for word in ("kfm turn", verb, turn_id, step_key) if word) + rest


def show_json(value: Any, *, line: bool = False) -> None:
    """One of the SDK's values as JSON; `line` for one of many, each on its own line."""
    from xenocomm.jsonable import to_json

    text = json.dumps(to_json(value), ensure_ascii=False, indent=None if line else 2)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A plain table; control characters of the data are made visible, so that they cannot drive the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    Console().print(table)


def clean(value: Any) -> str:
    """Text that is safe on a terminal."""
    if isinstance(value, Enum):
        value = value.name
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
