"""`kfm session ...`: conversations."""

from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.completing import session_ids
from kfm_server.doors.cli.console import Endpoint, Token, with_client
from kfm_server.doors.cli.printing import Fields, Form, Output, show_table
from kfm_server.doors.cli.show import time_of

if TYPE_CHECKING:
    from xenocomm import Client, Message, Session

app = typer.Typer(no_args_is_help=True, help="Sessions: list, show, what was said.")

SessionId = Annotated[str, typer.Argument(help="The session's id.", autocompletion=session_ids)]
Limit = Annotated[int, typer.Option(min=1, help="Most rows.")]
_COLUMNS = ("SESSION", "TURNS", "LATEST", "LAST TURN")


@app.command("list")
def list_(
    limit: Limit = 50,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """List sessions, the one with the latest turn first."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        form.rows(await client.sessions.list().first(limit), _COLUMNS, _row, "session_id")

    with_client(endpoint, token, body)


@app.command()
def show(
    session_id: SessionId,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Show a session: how many turns, since when, the latest."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        found = await client.sessions.get(session_id)
        form.one(found, lambda: show_table(_COLUMNS, [_row(found)]), "session_id")

    with_client(endpoint, token, body)


@app.command()
def messages(
    session_id: SessionId,
    limit: Limit = 1000,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """What was said, oldest first: message and answer of each turn that ended."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        found = await client.sessions.messages(session_id).first(limit)
        form.rows(found, ("SAID", "BY", "TEXT"), _message_row, "turn_id")

    with_client(endpoint, token, body)


def _row(session: "Session") -> tuple[object, ...]:
    return session.session_id, session.turns, time_of(session.updated_at), session.last_turn_id


def _message_row(message: "Message") -> tuple[object, ...]:
    from xenocomm.handle import text_of

    said = text_of(message.parts) or (message.error.message if message.error else "")
    return time_of(message.said_at), message.role, said
