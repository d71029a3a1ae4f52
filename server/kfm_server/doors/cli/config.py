"""`kfm config ...`: the settings of a running server."""

from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.console import NOT_FOUND, Endpoint, Token, refused, with_client
from kfm_server.doors.cli.printing import Fields, Form, Output, clean

if TYPE_CHECKING:
    from xenocomm import Client
    from xenocomm._gen.types import ConfigValue

app = typer.Typer(no_args_is_help=True, help="Configuration of the running server: show, reload.")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Only settings whose name begins so, as limits.")] = "",
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Show the settings in force and where each was set; secrets are left out. `*`: a change needs no restart.

    Exit code 3 if no setting begins so.
    """
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        found = await client.server.config()
        values = [value for value in found.values if value.name.startswith(name)]
        if not values:
            # A setting that is not there is as a turn that is not there: 3, whatever its reason has elsewhere.
            said = f"there is no setting that begins with {name!r}; kfm config show lists them"
            refused("REASON_INVALID_ARGUMENT", said, NOT_FOUND, form.json, "name")
            raise typer.Exit(NOT_FOUND)
        form.rows(values, ("NAME", "VALUE", "SOURCE", ""), _row, "name")
        if found.last_error:
            typer.echo(f"warning: the latest reading failed: {clean(found.last_error)}", err=True)

    with_client(endpoint, token, body)


@app.command()
def reload(
    output: Output = None, fields: Fields = "", endpoint: Endpoint = None, token: Token = None
) -> None:
    """Have the server read its configuration again. Exit code 2 if it cannot be used; then the one before stays."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        found = await client.server.reload()

        def told() -> None:
            for name in found.changed:
                later = "  (after a restart)" if name in found.need_restart else ""
                typer.echo(clean(f"{name}{later}"))
            if not found.changed:
                typer.echo("nothing changed", err=True)

        form.one(found, told, "digest")

    with_client(endpoint, token, body)


def _row(value: "ConfigValue") -> tuple[object, ...]:
    return value.name, value.value_json, value.source, "*" if value.reloads else ""
