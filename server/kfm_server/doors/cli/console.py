"""What all commands share: options, one client per command, output, exit codes."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any

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


def as_json(output: Format | None) -> bool:
    """Whether to print JSON: when asked to, or when nobody watches a terminal."""
    return output == Format.JSON or (output is None and not sys.stdout.isatty())


def with_client(
    output: Format | None,
    endpoint: str | None,
    token: str | None,
    body: "Callable[[Client], Awaitable[None]]",
) -> None:
    """Run `body` with a client. A typed failure is printed to stderr and becomes the exit code of the error table."""
    from xenocomm import Client, XenocommError

    async def run() -> None:
        async with Client(endpoint, token) as client:
            await body(client)

    try:
        asyncio.run(run())
    except XenocommError as error:
        show_error(error, output)
        raise typer.Exit(error.exit_code) from None
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def show_error(error: "XenocommError", output: Format | None) -> None:
    """One failure on stderr: a line and its violations, or one JSON object."""
    if as_json(output):
        found = {
            "reason": error.reason,
            "message": error.message,
            "metadata": error.metadata,
            "violations": [v._asdict() for v in error.violations],
            "exit_code": error.exit_code,
        }
        typer.echo(json.dumps({"error": found}, ensure_ascii=False), err=True)
        return
    typer.echo(f"error: {error.message} [{error.reason}]", err=True)
    for violation in error.violations:
        typer.echo(f"  {violation.field}: {violation.message} [{violation.rule}]", err=True)


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
