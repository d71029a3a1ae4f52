"""`kfm mcp`: the bridge to the Model Context Protocol over standard input and output."""

import os
import signal
from typing import Annotated

import typer

from kfm_server.doors.cli.console import Endpoint, Token
from kfm_server.doors.cli.own_server import NoStart, OwnServer, endpoint_in_home, listens
from kfm_server.doors.mcp_extra import is_of_mcp_extra

Groups = Annotated[list[str] | None, typer.Option("--group", help="A group of tools to add: steps.")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Offer only tools that change nothing.")]
Start = Annotated[bool, typer.Option("--start", help="Start a server if none runs, and stop it at the end.")]
Conformance = Annotated[
    int,
    typer.Option(
        metavar="PORT",
        min=0,
        max=65535,
        help="Serve http://127.0.0.1:PORT/mcp with the fixtures of the official conformance suite instead.",
        hidden=True,
    ),
]


def mcp(
    endpoint: Endpoint = None,
    token: Token = None,
    group: Groups = None,
    read_only: ReadOnly = False,
    start: Start = False,
    conformance: Conformance = 0,
) -> None:
    """Serve MCP on standard input and output, for hosts such as editors and desktop agents.

    The server is the one of --endpoint, else of KFM_ENDPOINT or a profile, else the one that endpoints.json in KFM_HOME
    (else .kfm) names.
    """
    try:
        import anyio
        from kfm_mcp.bridge import Bridge
        from kfm_mcp.gateway import Gateway
        from kfm_mcp.stdio import serve
    except ModuleNotFoundError as missing:
        if not is_of_mcp_extra(missing):
            raise
        typer.echo("error: MCP is an extra of this package: install kfm-server[mcp]", err=True)
        raise typer.Exit(2) from None
    from xenocomm import config

    from kfm_server import logs

    logs.configure(os.environ.get("KFM_LOG_LEVEL", "info"))
    known = config.load({"endpoint": endpoint or None, "token": token})
    said = bool(endpoint or os.environ.get("KFM_ENDPOINT")) or known.endpoint != config.DEFAULT_ENDPOINT
    server = OwnServer()

    def find() -> str:
        own = server.child is not None
        return known.endpoint if said and not own else endpoint_in_home() or known.endpoint

    def terminated(*_: object) -> None:
        # At once: the thread that reads standard input cannot be interrupted.
        server.stop()
        os._exit(128 + signal.SIGTERM)

    try:
        bridge = Bridge(Gateway(find, known.token, known.roots()), tuple(group or ()), read_only)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="--group") from None
    signal.signal(signal.SIGTERM, terminated)
    try:
        if not listens(find()):
            if start:
                server.start(known.token)
            else:
                _say(
                    f"no KFM server answers at {find()}; tools say so until one is started (kfm dev, or kfm mcp --start)"
                )
        if conformance:
            from kfm_mcp.conformance.fixtures import Fixtures
            from kfm_mcp.http import serve as serve_http

            anyio.run(serve_http, bridge, "127.0.0.1", conformance, Fixtures(bridge))
        else:
            anyio.run(serve, bridge)
    except NoStart as failed:
        _say(str(failed))
        raise typer.Exit(failed.exit_code) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        server.stop()


def _say(words: str) -> None:
    typer.echo(f"kfm mcp: {words}", err=True)
