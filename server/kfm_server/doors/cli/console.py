"""What all commands share: options, one client per command, failures on stderr, exit codes."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kfm_server.doors.cli.printing import clean

if TYPE_CHECKING:
    from xenocomm import Client, XenocommError
    from xenocomm._gen.errors import Violation

Endpoint = Annotated[
    str | None,
    typer.Option(
        help="host:port of the server, or of several with commas between; else KFM_ENDPOINT, else 127.0.0.1:50051."
    ),
]
Token = Annotated[str | None, typer.Option(help="Bearer token; else KFM_TOKEN.")]
Key = Annotated[str, typer.Option("--key", help="Idempotency key; made up when absent.")]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]

UNREACHABLE = 9
INTERRUPTED = 130
NOT_FOUND = 3
_INTERRUPTED_REASON = "INTERRUPTED"  # of the command line alone: nothing failed, the turn goes on


def seconds(text: str) -> float:
    """An option's value in seconds; BadParameter names the option unless it is a finite number from 0."""
    from xenocomm import errors
    from xenocomm.arguments import seconds as checked

    try:
        return checked("it", float(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a number of seconds") from None
    except errors.InvalidArgument as wrong:
        raise typer.BadParameter(wrong.message) from None


def standard_input(hint: str) -> str:
    """All of standard input; BadParameter, for the option `hint`, if it is not UTF-8."""
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as wrong:
        raise typer.BadParameter(
            f"standard input is not UTF-8 at byte {wrong.start}", param_hint=hint
        ) from None


def labels_of(given: list[str] | None) -> dict[str, str]:
    """Labels of `name=value` each. BadParameter."""
    pairs = [label.partition("=") for label in given or ()]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise typer.BadParameter(f"{bad[0]!r} is not name=value", param_hint="--label")
    return {name: value for name, _, value in pairs}


class Given:
    """What stands before the command: `kfm --profile staging --no-input turn list`."""

    profile: str | None = None
    no_input: bool = False


def with_client(endpoint: str | None, token: str | None, body: "Callable[[Client], Awaitable[None]]") -> None:
    """Run `body` with a client; its failures are for `entry.run`."""

    async def run() -> None:
        async with client_of(endpoint, token) as client:
            await body(client)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def client_of(endpoint: str | None, token: str | None, **options: Any) -> "Client":
    """A client as the command line and the environment say."""
    from xenocomm import Client

    return Client(endpoint, token, profile=Given.profile, **options)


def confirm(question: str, yes: bool) -> None:
    """Ask before what cannot be taken back. Only a terminal is asked; a program says `--yes`: BadParameter otherwise."""
    if yes:
        return
    if Given.no_input or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise typer.BadParameter(f"{question} Nobody can be asked: say --yes", param_hint="--yes")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def show_error(error: "XenocommError", json_wanted: bool) -> None:
    """One failure on stderr: a line with its violations and what to type next, or one JSON object."""
    from xenocomm import TurnNeedsPerson

    if json_wanted:
        _error_json(error.reason, error.message, error.metadata, error.violations, error.exit_code)
        return
    typer.echo(f"error: {clean(error.message)} [{clean(error.reason)}]", err=True)
    for violation in error.violations:
        if violation.message not in error.message:
            typer.echo(f"  {clean(violation.field)}: {clean(violation.message)} [{violation.rule}]", err=True)
    if isinstance(error, TurnNeedsPerson):
        typer.echo(f"  {command_for(error.verb, error.turn_id, error.step_key)}", err=True)


def refused(reason: str, message: str, exit_code: int, json_wanted: bool, field: str = "") -> None:
    """A failure that the command line itself found, in the form of all others; `field` is the option it lies in."""
    if json_wanted:
        from xenocomm._gen.errors import Violation

        violations = [Violation(field, "usage", message)] if field else []
        _error_json(reason, message, {}, violations, exit_code)
    else:
        typer.echo(f"error: {clean(message)}", err=True)


def _error_json(
    reason: str, message: str, metadata: Mapping[str, str], violations: "Sequence[Violation]", exit_code: int
) -> None:
    found = {
        "reason": reason,
        "message": message,
        "metadata": dict(metadata),
        "violations": [v._asdict() for v in violations],
        "exit_code": exit_code,
    }
    typer.echo(json.dumps({"error": found}, ensure_ascii=False), err=True)


def interrupted(turn_id: str, json_wanted: bool, after: int = 0) -> None:
    """What Ctrl-C leaves behind, on stderr: the turn, which goes on, and how to come back to it or to end it."""
    follow, end = (f"kfm turn {verb} {turn_id}" for verb in ("tail", "cancel"))
    if after:
        follow += f" --from {after + 1}"
    if json_wanted:
        told = {"turn_id": turn_id, "follow": follow, "cancel": end} if turn_id else {"list": "kfm turn list"}
        _error_json(_INTERRUPTED_REASON, "interrupted; the turn goes on", told, (), INTERRUPTED)
    elif turn_id:
        typer.echo(
            f"\ninterrupted; turn {turn_id} goes on\n  follow it: {follow}\n  end it:    {end}", err=True
        )
    else:
        typer.echo(
            "\ninterrupted; a turn may have been started by then\n  look for it: kfm turn list", err=True
        )


def detached(command: str, json_wanted: bool) -> None:
    """After Ctrl-C in a tail: what goes on where it ended."""
    if json_wanted:
        _error_json(_INTERRUPTED_REASON, "interrupted", {"follow": command}, (), INTERRUPTED)
    else:
        typer.echo(f"\ninterrupted\n  go on with: {command}", err=True)


def command_for(verb: str, turn_id: str, step_key: str) -> str:
    """What to type to end a wait; upper case is to be filled in."""
    rest = {"answer": " JSON", "settle": " --as succeeded|failed|retry"}.get(verb, "")
    return " ".join(word for word in ("kfm turn", verb, turn_id, step_key) if word) + rest
