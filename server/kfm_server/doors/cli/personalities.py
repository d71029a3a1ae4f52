"""`kfm personality ...`: who may answer, as a server tells it."""

from typing import TYPE_CHECKING

import typer

from kfm_server.doors.cli import packs
from kfm_server.doors.cli.console import Endpoint, Token, with_client
from kfm_server.doors.cli.printing import Fields, Form, Output, show_table

if TYPE_CHECKING:
    from xenocomm import Client, Personality
    from xenocomm._gen.types import Pack

app = typer.Typer(no_args_is_help=True, help="Personalities: how agents plan, with which models and tools.")


packs.add_to(app)


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


@app.command()
def show(name: str, output: Output = None, endpoint: Endpoint = None, token: Token = None) -> None:
    """Show one: what it is told, which pack it came from, and why an edit of that is not taken."""
    form = Form(output)

    async def body(client: "Client") -> None:
        found = await client.personalities.get(name)
        assert found.personality is not None

        def table() -> None:
            assert found.personality is not None
            shown = found.personality
            rows = [("name", shown.name), ("description", shown.description), ("planner", shown.planner)]
            rows += [
                ("models", " ".join(shown.models)),
                ("tools", " ".join(shown.tools)),
                ("digest", shown.digest),
            ]
            if found.pack is not None:
                pack = found.pack
                rows += [("version", pack.version), ("pack digest", pack.digest)]
                rows += [("signed by", pack.signed_by), ("skills", " ".join(pack.skills))]
                rows += [("problem", problem) for problem in found.pack.problems]
            show_table(("WHAT", "IS"), [*rows, ("told", found.instructions)])

        form.one(found, table, "")

    with_client(endpoint, token, body)


@app.command("packs")
def packs_(
    output: Output = None, fields: Fields = "", endpoint: Endpoint = None, token: Token = None
) -> None:
    """List the packs of a server, also those that it cannot use, and why."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        columns = ("NAME", "VERSION", "DIGEST", "TOOLS", "SKILLS", "SIGNED BY", "PROBLEMS")
        form.rows(await client.personalities.packs(), columns, _pack_row, "name")

    with_client(endpoint, token, body)


def _pack_row(pack: "Pack") -> tuple[object, ...]:
    tools, skills, problems = " ".join(pack.tools), " ".join(pack.skills), "; ".join(pack.problems)
    return pack.name, pack.version, pack.digest[:12], tools, skills, pack.signed_by, problems
