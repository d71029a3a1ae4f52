"""`kfm events tail`: what happens in all turns."""

import asyncio
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.completing import event_types, session_ids
from kfm_server.doors.cli.console import Endpoint, Token, detached, labels_of, with_client
from kfm_server.doors.cli.printing import Fields, Form, Output
from kfm_server.doors.cli.show import event_line

if TYPE_CHECKING:
    from xenocomm import Client

app = typer.Typer(no_args_is_help=True, help="Events across turns.")

_FROM = "now, beginning, or a cursor that an earlier tail told."


@app.callback()
def events() -> None:
    """Keeps `tail` a command of its own while it is the only one."""


@app.command()
def tail(
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            help="Only this type, as StepResultEvent.v1; may be repeated.",
            autocompletion=event_types,
        ),
    ] = None,
    session: Annotated[
        str, typer.Option("--session", help="Only this session.", autocompletion=session_ids)
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option("--label", help="Only turns with name=value; may be repeated.")
    ] = None,
    start: Annotated[str, typer.Option("--from", metavar="WHERE", help=_FROM)] = "now",
    limit: Annotated[int, typer.Option(min=0, help="End after so many; 0 never ends.")] = 0,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Follow committed events, each session's in order, over disconnects and restarts; JSON is one object a line.

    Ctrl-C ends it and tells, on stderr, what goes on from there; the last few events may come again.
    """
    form, labels = Form(output, fields), labels_of(label)
    at = {"start": start} if start in ("now", "beginning") else {"cursor": start}

    async def body(client: "Client") -> None:
        watch = client.events.watch(types or (), session_id=session, labels=labels, **at)
        seen = 0
        try:
            async for envelope in watch:
                where = envelope.turn_id or envelope.session_id
                form.line(envelope, f"{where}  {event_line(envelope)}", "event_id")
                seen += 1
                if seen == limit:
                    return
        except asyncio.CancelledError:
            filters = [*(f"--type={t}" for t in types or ()), *(f"--label={one}" for one in label or ())]
            filters += [f"--session={session}"] if session else []
            words = ["kfm", "events", "tail", *filters, "--from", watch.cursor or start]
            detached(shlex.join(words), form.json)
            raise

    with_client(endpoint, token, body)
