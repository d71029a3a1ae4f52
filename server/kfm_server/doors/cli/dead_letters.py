"""`kfm dlq ...`: messages that a consumer could not take."""

from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.console import Endpoint, Key, Token, Yes, confirm, with_client
from kfm_server.doors.cli.printing import Fields, Form, Format, Output, show_table

if TYPE_CHECKING:
    from xenocomm import Client
    from xenocomm._gen.types import DeadLetter

app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, replay, drop.")

LetterId = Annotated[str, typer.Argument(help="The dead letter's id.")]
_COLUMNS = ("ID", "GROUP", "TOPIC", "PARTITION", "OFFSET", "SESSION", "REASON")


@app.command("list")
def list_(
    group: Annotated[str, typer.Option(help="Only those of this consumer group.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 1000,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """List dead letters, oldest first."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        letters = await client.dead_letters.list(group=group).first(limit)
        form.rows(letters, _COLUMNS, _row, "dead_letter_id")

    with_client(endpoint, token, body)


@app.command()
def show(
    letter_id: LetterId,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Show one with its original bytes."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        letter = await client.dead_letters.get(letter_id)

        def table() -> None:
            show_table(_COLUMNS, [_row(letter)])
            if letter.error is not None:
                typer.echo(f"error: {letter.error.message}")
            typer.echo(f"original ({len(letter.original)} bytes): {letter.original.hex()}")

        form.one(letter, table, "dead_letter_id")

    with_client(endpoint, token, body)


@app.command()
def replay(
    letter_id: LetterId, key: Key = "", output: Output = None, endpoint: Endpoint = None, token: Token = None
) -> None:
    """Hand it to its consumer again and lift the hold on its session."""
    form = Form(output)

    async def body(client: "Client") -> None:
        await client.dead_letters.replay(letter_id, idempotency_key=key)
        _done("replayed", letter_id, form)

    with_client(endpoint, token, body)


@app.command()
def drop(
    letter_id: LetterId,
    yes: Yes = False,
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Give it up for good and lift the hold on its session. Asks first; a program says --yes."""
    confirm(f"Drop {letter_id} for good?", yes)
    form = Form(output)

    async def body(client: "Client") -> None:
        await client.dead_letters.drop(letter_id, idempotency_key=key)
        _done("dropped", letter_id, form)

    with_client(endpoint, token, body)


def _done(what: str, letter_id: str, form: Form) -> None:
    if form.json:
        form.one({"dead_letter_id": letter_id, "done": what}, lambda: None, "")
    else:
        typer.echo(letter_id if form.format == Format.ID else f"{letter_id} {what}")


def _row(letter: "DeadLetter") -> tuple[object, ...]:
    reason = letter.error.reason if letter.error else ""
    return (
        letter.dead_letter_id,
        letter.group,
        letter.topic,
        letter.partition,
        letter.offset,
        letter.session_id,
        reason,
    )
