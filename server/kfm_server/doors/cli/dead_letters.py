"""`kfm dlq ...`: messages that a consumer could not take."""

from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.console import (
    Endpoint,
    Key,
    Output,
    Token,
    as_json,
    show_json,
    show_table,
    with_client,
)

if TYPE_CHECKING:
    from xenocomm import Client
    from xenocomm._gen.types import DeadLetter

app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, replay, drop.")

LetterId = Annotated[str, typer.Argument(help="The dead letter's id.")]
_COLUMNS = ("ID", "GROUP", "TOPIC", "PARTITION", "OFFSET", "SESSION", "REASON")


@app.command("list")
def list_(
    group: Annotated[str, typer.Option(help="Only those of this consumer group.")] = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """List dead letters, oldest first."""

    async def body(client: "Client") -> None:
        letters = [letter async for letter in client.dead_letters.list(group=group)]
        if as_json(output):
            show_json(letters)
        else:
            show_table(_COLUMNS, [_row(letter) for letter in letters])

    with_client(endpoint, token, body)


@app.command()
def show(letter_id: LetterId, output: Output = None, endpoint: Endpoint = None, token: Token = None) -> None:
    """Show one with its original bytes."""

    async def body(client: "Client") -> None:
        letter = await client.dead_letters.get(letter_id)
        if as_json(output):
            show_json(letter)
            return
        show_table(_COLUMNS, [_row(letter)])
        if letter.error is not None:
            typer.echo(f"error: {letter.error.message}")
        typer.echo(f"original ({len(letter.original)} bytes): {letter.original.hex()}")

    with_client(endpoint, token, body)


@app.command()
def replay(
    letter_id: LetterId, key: Key = "", output: Output = None, endpoint: Endpoint = None, token: Token = None
) -> None:
    """Hand it to its consumer again and lift the hold on its session."""

    async def body(client: "Client") -> None:
        await client.dead_letters.replay(letter_id, idempotency_key=key)
        _done("replayed", letter_id, as_json(output))

    with_client(endpoint, token, body)


@app.command()
def drop(
    letter_id: LetterId, key: Key = "", output: Output = None, endpoint: Endpoint = None, token: Token = None
) -> None:
    """Give it up and lift the hold on its session."""

    async def body(client: "Client") -> None:
        await client.dead_letters.drop(letter_id, idempotency_key=key)
        _done("dropped", letter_id, as_json(output))

    with_client(endpoint, token, body)


def _done(what: str, letter_id: str, json_wanted: bool) -> None:
    if json_wanted:
        show_json({"dead_letter_id": letter_id, "done": what})
    else:
        typer.echo(f"{letter_id} {what}")


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
