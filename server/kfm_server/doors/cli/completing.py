"""Completion: the scripts for shells, and live ids as somebody types."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.printing import clean

if TYPE_CHECKING:
    from xenocomm import Client

_PATIENCE_S = 1.5
_MOST = 50


class Shell(StrEnum):
    """A shell that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="bash, zsh or fish.")]) -> None:
    """Print the completion script of a shell: `source <(kfm completion bash)`, or `kfm completion fish | source`.

    Ids of turns and sessions are asked of the server while you type.
    """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="kfm", complete_var="_KFM_COMPLETE", shell=shell))


def prepare() -> None:
    """Let the shells in, if one asks: before the command line is read."""
    if "_KFM_COMPLETE" in os.environ:
        from typer._completion_classes import completion_init

        completion_init()


def turn_ids(incomplete: str) -> list[tuple[str, str]]:
    """The latest turns that begin so, each with how it stands."""

    async def ask(client: "Client") -> list[tuple[str, str]]:
        found = await client.turns.list().first(_MOST)
        return [(t.turn_id, clean(t.outcome or t.state).lower()) for t in found]

    return _asked(ask, incomplete)


def session_ids(incomplete: str) -> list[tuple[str, str]]:
    """The latest sessions that begin so."""

    async def ask(client: "Client") -> list[tuple[str, str]]:
        found = await client.sessions.list().first(_MOST)
        return [(s.session_id, f"{s.turns} turns") for s in found]

    return _asked(ask, incomplete)


def personality_names(incomplete: str) -> list[tuple[str, str]]:
    """The personalities that begin so."""

    async def ask(client: "Client") -> list[tuple[str, str]]:
        return [(p.name, p.planner) for p in await client.personalities.list()]

    return _asked(ask, incomplete)


def event_types(incomplete: str) -> list[str]:
    """The event types that begin so."""
    from xenocomm._gen.types import EVENTS

    return [name for name in EVENTS if name.startswith(incomplete)]


def _asked(
    ask: "Callable[[Client], Awaitable[list[tuple[str, str]]]]", incomplete: str
) -> list[tuple[str, str]]:
    """What a server says soon; nothing when none does, for nobody wants an error in the middle of a line."""
    from kfm_server.doors.cli.console import client_of

    async def run() -> list[tuple[str, str]]:
        async with (
            asyncio.timeout(_PATIENCE_S),
            client_of(None, None, timeout=_PATIENCE_S, retries=0) as client,
        ):
            return [pair for pair in await ask(client) if pair[0].startswith(incomplete)]

    from xenocomm import XenocommError

    try:
        return asyncio.run(run())
    except (XenocommError, TimeoutError, OSError):
        return []
