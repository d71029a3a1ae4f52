"""`kfm personality ...`: who may answer."""

from typing import TYPE_CHECKING

import typer

from kfm_server.doors.cli.console import Endpoint, Token, with_client
from kfm_server.doors.cli.printing import Fields, Form, Output

if TYPE_CHECKING:
    from xenocomm import Client, Personality

app = typer.Typer(no_args_is_help=True, help="Personalities: how agents plan, with which models and tools.")


@app.callback()
def personality() -> None:
    """Keeps `list` a command of its own while it is the only one."""


@app.command("list")
def list_(output: Output = None, fields: Fields = "", endpoint: Endpoint = None, token: Token = None) -> None:
    """List personalities; the default one is marked."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        columns = ("NAME", "DEFAULT", "PLANNER", "MODELS", "TOOLS", "DESCRIPTION")
        form.rows(await client.personalities.list(), columns, _row, "name")

    with_client(endpoint, token, body)


def _row(found: "Personality") -> tuple[object, ...]:
    models, tools = " ".join(found.models), " ".join(found.tools)
    return found.name, "*" if found.is_default else "", found.planner, models, tools, found.description
