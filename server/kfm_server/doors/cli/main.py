"""`kfm`: the command line. Everything but `dev` and `serve` goes through the SDK over a real channel.

Exit codes: 0 fine, 1 internal or no start, 2 wrong use or request, 3 not found, 4 not allowed, 5 conflict, 6 turn failed,
7 waits for a person, 8 timed out, 9 no server or overloaded, 130 interrupted.
"""

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli import (
    completing,
    config,
    dead_letters,
    describing,
    doctor,
    entry,
    events,
    mcp,
    memory,
    model_server,
    new_turn,
    personalities,
    sessions,
    turns,
    worker,
)
from kfm_server.doors.cli.console import Given
from kfm_server.importing import uncollected

if TYPE_CHECKING:
    from kfm_server.endpoints import Endpoints

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="KFM Agent Shell. Exit codes: 0 fine, 1 internal or no start, 2 wrong use or request, 3 not found, 4 not allowed, "
    "5 conflict, 6 turn failed, 7 waits for a person, 8 timed out, 9 no server or overloaded, 130 interrupted.",
)
app.command()(new_turn.run)
app.add_typer(turns.app, name="turn")
app.add_typer(sessions.app, name="session")
app.add_typer(memory.app, name="memory")
app.add_typer(personalities.app, name="personality")
app.add_typer(events.app, name="events")
app.add_typer(config.app, name="config")
app.add_typer(dead_letters.app, name="dlq")
app.add_typer(worker.app, name="worker")
app.command()(doctor.doctor)
app.command()(completing.completion)
app.command("model-server")(model_server.model_server)
app.command()(mcp.mcp)

Home = Annotated[str | None, typer.Option(help="Where state lives; else KFM_HOME, else .kfm/.")]
GrpcAddress = Annotated[str | None, typer.Option(help="host:port of the gRPC door; port 0 takes a free one.")]
HttpAddress = Annotated[str | None, typer.Option(help="host:port of the HTTP door; port 0 takes a free one.")]
DatabaseUrl = Annotated[str | None, typer.Option(help="Postgres to use; empty starts the embedded one.")]
ConfigFile = Annotated[
    str | None, typer.Option("--config", help="config.toml to read; else KFM_CONFIG, else the one in home.")
]
ServerToken = Annotated[str | None, typer.Option(help="Token that every door asks for; else KFM_TOKEN.")]

Role = Annotated[
    str | None,
    typer.Option(help="One or more of api, runtime and worker, with commas between; else KFM_ROLE."),
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from xenocomm._gen.types import SCHEMA_RELEASE

        typer.echo(f"kfm {version('kfm-server')}, schema {SCHEMA_RELEASE}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
]


def _describe(wanted: bool) -> None:
    if wanted:
        typer.echo(describing.describe(app))
        raise typer.Exit


Describe = Annotated[
    bool,
    typer.Option(
        "--describe",
        callback=_describe,
        is_eager=True,
        help="Show every command as JSON and exit, for programs.",
    ),
]
Profile = Annotated[
    str | None, typer.Option(help="Profile of ~/.config/kfm/profiles.toml; else KFM_PROFILE.")
]
NoInput = Annotated[bool, typer.Option("--no-input", help="Never ask; what would be asked needs --yes.")]


@app.callback()
def _root(
    profile: Profile = None, no_input: NoInput = False, version: Version = False, describe: Describe = False
) -> None:
    Given.profile, Given.no_input = profile, no_input


@app.command()
def dev(
    home: Home = None,
    grpc_address: GrpcAddress = None,
    http_address: HttpAddress = None,
    database_url: DatabaseUrl = None,
    token: ServerToken = None,
    config: ConfigFile = None,
) -> None:
    """Run a server for this machine, and print calls to copy."""
    _serve(home, grpc_address, http_address, database_url, token, config, welcome=True)


@app.command()
def serve(
    home: Home = None,
    grpc_address: GrpcAddress = None,
    http_address: HttpAddress = None,
    database_url: DatabaseUrl = None,
    token: ServerToken = None,
    config: ConfigFile = None,
    role: Role = None,
) -> None:
    """Run a server."""
    _serve(home, grpc_address, http_address, database_url, token, config, role)


def _serve(
    home: str | None,
    grpc_address: str | None,
    http_address: str | None,
    database_url: str | None,
    token: str | None,
    config: str | None,
    role: str | None = None,
    *,
    welcome: bool = False,
) -> None:
    from kfm_server.settings import Config, SettingsError

    given = {
        "home": home,
        "grpc_address": grpc_address,
        "http_address": http_address,
        "database_url": database_url,
        "token": token,
        "role": role,
    }
    try:
        read = Config.load(given, path=None if config is None else Path(config))
    except SettingsError as wrong:
        typer.echo(f"error: {wrong}", err=True)
        raise typer.Exit(2) from None
    with uncollected():
        from kfm_server.starting import StartFailed, run  # most of a server: not for a wrong setting

    def told(found: "Endpoints") -> None:
        _welcome(found.grpc, found.http, found.data, guarded=bool(read.settings.token))

    try:
        code = run(read, told if welcome else None)
    except StartFailed as failed:
        typer.echo(f"error: the server could not start: {failed}", err=True)
        code = failed.exit_code
    raise typer.Exit(code)


def _welcome(grpc: str, http: str, data: str, guarded: bool) -> None:
    kfm, buf = _pasted("kfm"), _pasted("buf")
    request = '{"turn": {"input": [{"text": "what is (17 + 5) * 3 / 2 ?"}]}, "idempotency_key": "k1"}'
    bearer = """-H "authorization: Bearer $KFM_TOKEN" """ if guarded else ""
    reflect = f"{bearer}--reflect-header '*' " if guarded else ""
    with_token = ", with KFM_TOKEN set to the server's token" if guarded else ""
    typer.echo(
        f"""
gRPC {grpc}   HTTP {http}   data {data or "in KFM_DATABASE_URL"}

In another terminal, in this directory{with_token}:

  export KFM_ENDPOINT={grpc}
  {kfm} run "what is (17 + 5) * 3 / 2 ?"
  {kfm} run "Add a todo to buy milk, then show me all my tasks" -o json
  {buf} curl --protocol grpc --http2-prior-knowledge {reflect}-d '{request}' http://{grpc}/kfm.turn.v1.TurnService/RunTurn
  grpcurl -plaintext {bearer}-d '{request}' {grpc} kfm.turn.v1.TurnService/RunTurn
  curl http://{http}/health/ready
"""
    )


def _pasted(name: str) -> str:
    """How a shell in this directory calls a program that was installed beside this Python."""
    beside = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not beside.exists() or (found and Path(found) == beside):
        return name
    here = Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))


def main() -> None:
    """The entry point."""
    completing.prepare()
    sys.exit(entry.run(app, sys.argv[1:]))


if __name__ == "__main__":
    main()
