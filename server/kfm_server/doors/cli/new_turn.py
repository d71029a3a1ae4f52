"""`kfm run` and `kfm turn start`: handing a message in, and what its turn comes to."""

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kfm_server.doors.cli.completing import personality_names, session_ids
from kfm_server.doors.cli.console import (
    Endpoint,
    Key,
    Token,
    interrupted,
    labels_of,
    seconds,
    standard_input,
    with_client,
)
from kfm_server.doors.cli.live import Live
from kfm_server.doors.cli.printing import Fields, Form, Format, Output
from kfm_server.doors.cli.show import show_id, show_result, show_turn

if TYPE_CHECKING:
    from xenocomm import Client, Part, TurnHandle


class Busy(StrEnum):
    """What to do when the session runs another turn."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


PATIENCE = "How long to wait for the end, for ever when absent; the turn goes on."
Text = Annotated[str, typer.Argument(help="The message; `-` reads it from standard input.")]
Data = Annotated[
    str, typer.Option("--data", help="The message as JSON, such as a plan, in place of a text; `-` reads it.")
]
SessionId = Annotated[
    str, typer.Option("--session", help="Session; a new one when absent.", autocompletion=session_ids)
]
Personality = Annotated[str, typer.Option(help="name or name@version.", autocompletion=personality_names)]
OnBusy = Annotated[Busy | None, typer.Option(help="What to do when the session is busy.")]
Timeout = Annotated[
    float | None, typer.Option(parser=seconds, metavar="SECONDS", help="How long the turn may take.")
]
Labels = Annotated[list[str] | None, typer.Option("--label", help="name=value; may be repeated.")]
Schema = Annotated[
    Path | None,
    typer.Option(
        "--output-schema", metavar="FILE", help="JSON Schema that the answer has to fit; it is data then."
    ),
]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="Most steps.")]
MaxModelCalls = Annotated[int | None, typer.Option(min=1, help="Most model calls, every attempt counted.")]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of all model calls, read and written.")
]
MaxCost = Annotated[str, typer.Option(metavar="USD", help="Most money for all model calls, as 0.05.")]
Wait = Annotated[float | None, typer.Option("--wait", parser=seconds, metavar="SECONDS", help=PATIENCE)]


@dataclass(frozen=True, slots=True)
class NewTurn:
    """What the options of a new turn come to: `how` is what `client.turns.start` takes beside the message."""

    message: "str | Part"
    how: dict[str, Any]


def new_turn(
    text: Text = "",
    data: Data = "",
    session: SessionId = "",
    personality: Personality = "",
    on_busy: OnBusy = None,
    timeout: Timeout = None,
    label: Labels = None,
    output_schema: Schema = None,
    max_steps: MaxSteps = None,
    max_model_calls: MaxModelCalls = None,
    max_tokens: MaxTokens = None,
    max_cost: MaxCost = "",
    key: Key = "",
) -> NewTurn:
    """The options that every command which starts a turn has. BadParameter."""
    from xenocomm import BusyMode

    message = _message(text, data)
    limits = {
        "max_steps": max_steps,
        "max_model_calls": max_model_calls,
        "max_tokens": max_tokens,
        "max_cost": max_cost or None,
    }
    how: dict[str, Any] = {
        "session_id": session,
        "personality": personality,
        "on_busy": BusyMode[on_busy.name] if on_busy else BusyMode.UNSPECIFIED,
        "timeout": timeout,
        "labels": labels_of(label),
        "idempotency_key": key,
        "output": None if output_schema is None else _schema(output_schema),
        "limits": {name: value for name, value in limits.items() if value is not None} or None,
    }
    return NewTurn(message, how)


def starts_turn(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `new_turn`; it gets what they come to as its first argument."""
    asked = signature(new_turn).parameters
    _, *own = signature(command).parameters.values()

    @wraps(command)
    def with_options(**given: Any) -> None:
        turn = new_turn(**{name: given.pop(name) for name in asked})
        command(turn, **given)

    # What typer reads.
    vars(with_options)["__signature__"] = Signature([*asked.values(), *own])
    with_options.__annotations__ = {p.name: p.annotation for p in (*asked.values(), *own)}
    return with_options


@starts_turn
def run(
    turn: NewTurn,
    wait: Wait = None,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Start a turn, wait for its end and show the answer, the plan and its history; on a terminal, as it happens.

    Exit codes: 0 succeeded, 6 failed or cancelled, 7 waits for a person, 8 timed out, 9 no server, 2 wrong request,
    130 interrupted: the turn goes on, and its id is on stderr.
    """
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        turn_id = ""
        try:
            live = form.format == Format.TABLE and not form.fields and sys.stdout.isatty()
            handle = await client.turns.start(turn.message, **turn.how, watch=live)
            turn_id = handle.id
            await result_of(handle, wait, form, live=live)
        except asyncio.CancelledError:
            interrupted(turn_id, form.json)
            raise

    with_client(endpoint, token, body)


@starts_turn
def start(turn: NewTurn, output: Output = None, endpoint: Endpoint = None, token: Token = None) -> None:
    """Start a turn and print its id; it is durable by then."""
    form = Form(output)

    async def body(client: "Client") -> None:
        handle = await client.turns.start(turn.message, **turn.how)
        show_id(handle.id, handle.session_id, form)

    with_client(endpoint, token, body)


async def result_of(turn: "TurnHandle", wait: float | None, form: Form, *, live: bool = False) -> None:
    """Wait for a turn's end, `live` by showing what happens until then, and show it. TurnUnsuccessful, ResultTimeout."""
    from xenocomm import TurnUnsuccessful

    screen = Live()
    try:
        if live:
            result = await turn.until_done(screen.update, timeout=wait)
        else:
            result = await turn.result(timeout=wait)
    except TurnUnsuccessful as failure:
        screen.rest()
        # The failure itself is told on stderr.
        show_turn(failure.turn, form, error=False)
        raise
    finally:
        shown = screen.shown
        screen.rest()
    show_result(result, form, shown=shown)


def _schema(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--output-schema") from None
    except ValueError as error:
        raise typer.BadParameter(f"{path} is no JSON: {error}", param_hint="--output-schema") from None
    except RecursionError:
        raise typer.BadParameter(f"{path} is nested deeper than 100", param_hint="--output-schema") from None
    if not isinstance(found, dict):
        raise typer.BadParameter(f"{path} holds no JSON object", param_hint="--output-schema")
    return found


def _message(text: str, data: str) -> "str | Part":
    from xenocomm import Part

    if bool(text) == bool(data):
        raise typer.BadParameter("give a message, or --data with one as JSON", param_hint="text")
    if data:
        return Part(data_json=standard_input("--data") if data == "-" else data)
    return standard_input("text") if text == "-" else text
