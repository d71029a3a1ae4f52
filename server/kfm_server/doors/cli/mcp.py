"""`kfm mcp`: the bridge to the Model Context Protocol over standard input and output."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from kfm_server.doors.cli.console import Endpoint, Token

_START_S = 60.0
_STOP_S = 20.0

Groups = Annotated[list[str] | None, typer.Option("--group", help="A group of tools to add: steps.")]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Offer only tools that change nothing.")]
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
Start = Annotated[bool, typer.Option("--start", help="Start a server if none runs, and stop it at the end.")]


def mcp(
    endpoint: Endpoint = None,
    token: Token = None,
    group: Groups = None,
    read_only: ReadOnly = False,
    start: Start = False,
    conformance: Conformance = 0,
) -> None:
    """Serve MCP on standard input and output, for hosts such as editors and desktop agents.

    It finds the server at --endpoint, else KFM_ENDPOINT, else where endpoints.json in KFM_HOME (else .kfm) says.
    """
    try:
        import anyio
        from kfm_mcp.bridge import Bridge
        from kfm_mcp.gateway import Gateway
        from kfm_mcp.stdio import serve
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] not in ("kfm_mcp", "mcp", "mcp_types"):
            raise
        typer.echo("error: MCP is an extra of this package: install kfm-server[mcp]", err=True)
        raise typer.Exit(2) from None
    from xenocomm import config

    _log_to_stderr()
    known = config.load({"endpoint": endpoint or None, "token": token})
    said = bool(endpoint or os.environ.get("KFM_ENDPOINT")) or known.endpoint != config.DEFAULT_ENDPOINT

    def find() -> str:
        return known.endpoint if said else _from_home() or known.endpoint

    try:
        bridge = Bridge(Gateway(find, known.token, known.roots()), tuple(group or ()), read_only)
    except ValueError as wrong:
        raise typer.BadParameter(str(wrong), param_hint="--group") from None
    child = _start_server(known.token) if start and not _answers(find()) else None
    if child is None and not _answers(find()):
        typer.echo(
            f"kfm mcp: no KFM server answers at {find()}; tools say so until one is started (kfm dev, or kfm mcp --start)",
            err=True,
        )
    try:
        if conformance:
            from kfm_mcp.conformance.fixtures import Fixtures
            from kfm_mcp.http import serve as serve_http

            anyio.run(serve_http, bridge, "127.0.0.1", conformance, Fixtures())
        else:
            anyio.run(serve, bridge)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        if child is not None:
            _stop(child)


def _home() -> Path:
    return Path(os.environ.get("KFM_HOME") or ".kfm")


def _from_home() -> str:
    """Where the server of this home listens; empty if it never said."""
    from xenocomm import XenocommError, arguments

    try:
        return arguments.endpoint(json.loads((_home() / "endpoints.json").read_bytes())["grpc"])
    except (OSError, ValueError, KeyError, TypeError, XenocommError):
        return ""


def _answers(endpoint: str) -> bool:
    """Whether something accepts connections there."""
    import socket

    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 2).close()
    except OSError:
        return False
    return True


def _start_server(token: str) -> "subprocess.Popen[bytes]":
    """`kfm serve` as a child that listens on free ports; waits until it serves. Exit with its code if it does not."""
    said = _home() / "endpoints.json"
    said.unlink(missing_ok=True)
    environment = {"KFM_GRPC_ADDRESS": "127.0.0.1:0", "KFM_HTTP_ADDRESS": "127.0.0.1:0", **os.environ}
    environment |= {"KFM_TOKEN": token} if token else {}
    child = subprocess.Popen(
        [sys.executable, "-m", "kfm_server"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
    )
    until = time.monotonic() + _START_S
    while not said.exists():
        try:
            code = child.wait(0.05)
        except subprocess.TimeoutExpired:
            if time.monotonic() < until:
                continue
            _stop(child)
            code = 1
        typer.echo("kfm mcp: the server did not start; its own words are above", err=True)
        raise typer.Exit(code or 1)
    return child


def _stop(child: "subprocess.Popen[bytes]") -> None:
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _log_to_stderr() -> None:
    from kfm_server import logs

    logs.configure(os.environ.get("KFM_LOG_LEVEL", "info"))
