"""`kfm worker`: a worker of a pool, and who else works."""

import asyncio
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import astuple
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.console import UNREACHABLE, Endpoint, Token, Yes, confirm, seconds, with_client
from kfm_server.doors.cli.printing import Fields, Form, Output, show_table

if TYPE_CHECKING:
    from xenocomm import Client
    from xenocomm._gen.types import Worker

    from kfm_server.ports.iggy_settings import IggySettings
    from kfm_server.worker.program import WorkerOptions

app = typer.Typer(
    invoke_without_command=True,
    help="A worker: performs the steps of a pool, for the servers of --endpoint, until SIGTERM.",
)


@app.callback(invoke_without_command=True)
def worker(
    context: typer.Context,
    pool: Annotated[str, typer.Option(help="Pool to serve: [a-z][a-z0-9_-]*.")] = "",
    tools: Annotated[
        str,
        typer.Option(
            metavar="MODULE:ATTRIBUTE,..", help="Lists of tools that it performs, as KFM_TOOLS names them."
        ),
    ] = "",
    capacity: Annotated[int, typer.Option(min=1, max=1_000, help="Attempts at one time.")] = 16,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,..",
            help="A server, or several to try in turn; else KFM_ENDPOINT, else 127.0.0.1:50051.",
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Its name, unique in the pool; else host and process id.")] = "",
    drain: Annotated[
        float, typer.Option(metavar="SECONDS", parser=seconds, help="How long SIGTERM lets run what runs.")
    ] = 30.0,
    bus: Annotated[
        bool,
        typer.Option(help="Take PURE and IDEMPOTENT steps from the broker of KFM_IGGY_*, not from servers."),
    ] = False,
    token: Token = None,
) -> None:
    """A worker: performs the steps of a pool, for the servers of --endpoint, until SIGTERM."""
    if context.invoked_subcommand is not None:
        return
    for option, given in (("--pool", pool), ("--tools", tools)):
        if not given:
            raise typer.BadParameter("a worker needs it", param_hint=option)
    from xenocomm import config

    from kfm_server import logs
    from kfm_server.doors.cli.console import Given
    from kfm_server.secret import Secret
    from kfm_server.tools.registry import ToolsInvalid
    from kfm_server.worker.program import WorkerOptions, run

    known = config.load({"endpoint": endpoint or None, "token": token}, Given.profile)
    logs.configure(os.environ.get("KFM_LOG_LEVEL", "info"))
    logs.hide([Secret(known.token)])
    options = WorkerOptions(
        pool=pool,
        tools=tools,
        endpoints=tuple(known.endpoint.split(",")),
        token=known.token,
        roots=known.roots(),
        name=name,
        capacity=capacity,
        drain_seconds=drain,
    )
    try:
        code = _on_bus(options) if bus else run(options)
    except ToolsInvalid as wrong:
        raise typer.BadParameter(str(wrong), param_hint="--tools") from None
    raise typer.Exit(code)


def _on_bus(options: "WorkerOptions") -> int:
    with _broker("--bus") as (iggy, partitions):
        from kfm_server.worker.bus_program import run_on_bus

        return run_on_bus(options, iggy, partitions)


@contextmanager
def _broker(hint: str) -> "Generator[tuple[IggySettings, int]]":
    """The broker of the settings, and how many partitions its topics have. What is wrong with it is told: BadParameter."""
    from kfm_server.ports.broker import BrokerMisfit
    from kfm_server.settings import Config, SettingsError

    if find_spec("apache_iggy") is None:
        raise typer.BadParameter("install kfm-server[iggy]", param_hint=hint)
    try:
        settings = Config.load().settings
    except SettingsError as wrong:
        raise typer.BadParameter(str(wrong), param_hint=hint) from None
    if not settings.iggy.address:
        raise typer.BadParameter("KFM_IGGY_ADDRESS names no broker", param_hint=hint)
    try:
        yield settings.iggy, settings.partitions
    except BrokerMisfit as misfit:
        raise typer.BadParameter(str(misfit), param_hint="KFM_IGGY_ADDRESS") from None


@app.command()
def ghosts(
    pool: Annotated[str, typer.Option(help="The pool.")],
    remove: Annotated[bool, typer.Option("--remove", help="Make the group anew without them.")] = False,
    yes: Yes = False,
    output: Output = None,
    fields: Fields = "",
) -> None:
    """Count members of a pool's group on the broker of KFM_IGGY_*, and the ghosts among them.

    A ghost has no process any more, and holds steps that nobody takes: so brokers come back from a restart. Members that
    come or go are ghosts for a moment, too: look twice. Exit code 9 if the broker does not answer.
    """
    form = Form(output, fields)
    with _broker("KFM_IGGY_*") as (iggy, partitions):
        from kfm_server.ports.broker import BrokerUnavailable
        from kfm_server.worker.ghosts import members_of, remove_ghosts

        try:
            if remove:
                confirm(
                    f"Make the group of pool {pool!r} anew? Its workers join again; steps may come twice.",
                    yes,
                )
                asyncio.run(remove_ghosts(pool, iggy, partitions))
            found = asyncio.run(members_of(pool, iggy, partitions))
        except BrokerUnavailable as away:
            typer.echo(f"error: the broker at {iggy.address} does not answer: {away}", err=True)
            raise typer.Exit(UNREACHABLE) from None

    def table() -> None:
        show_table(("POOL", "MEMBERS", "CONNECTED", "GHOSTS"), [astuple(found)])

    form.one(found, table, "pool")


@app.command("list")
def list_(
    pool: Annotated[str, typer.Option(help="Only those of this pool.")] = "",
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """List the workers that are connected to a server."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        columns = ("NAME", "POOL", "RUNNING", "CAPACITY", "SINCE", "PROGRAM", "SCHEMA")
        form.rows((await client.server.workers(pool)).workers, columns, _row, "worker")

    with_client(endpoint, token, body)


def _row(found: "Worker") -> tuple[object, ...]:
    since = f"{found.since:%Y-%m-%d %H:%M:%S}" if found.since else ""
    places = (found.running, found.capacity)
    return found.worker, found.pool, *places, since, found.program, found.schema_release
