"""`kfm run` and `kfm turn ...`: turns from the command line."""

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kfm_server.doors.cli.console import (
    Endpoint,
    Key,
    Output,
    Token,
    as_json,
    interrupted,
    seconds,
    show_json,
    show_table,
    standard_input,
    with_client,
)
from kfm_server.doors.cli.show import answer_text, event_line, show_id, show_turn, show_waits

if TYPE_CHECKING:
    from xenocomm import Client, Part, Turn, TurnHandle

app = typer.Typer(no_args_is_help=True, help="Turns: start, watch, steer.")

TurnId = Annotated[str, typer.Argument(help="The turn's id.")]
StepKey = Annotated[str, typer.Argument(help="The step's key.")]
Reason = Annotated[str, typer.Option(help="Why, for those who read the history.")]


class Busy(StrEnum):
    """What to do when the session runs another turn."""

    ENQUEUE = "enqueue"
    REJECT = "reject"
    INTERRUPT = "interrupt"
    ROLLBACK = "rollback"


class Standing(StrEnum):
    """Where a turn stands."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    FINISHED = "finished"


class Verdict(StrEnum):
    """How a step of unknown outcome ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRY = "retry"


Text = Annotated[str, typer.Argument(help="The message; `-` reads it from standard input.")]
Data = Annotated[str, typer.Option("--data", help="The message as JSON, such as a plan, in place of a text.")]
SessionId = Annotated[str, typer.Option("--session", help="Session; a new one when absent.")]
Personality = Annotated[str, typer.Option(help="name or name@version.")]
OnBusy = Annotated[Busy | None, typer.Option(help="What to do when the session is busy.")]
Timeout = Annotated[
    float | None, typer.Option(parser=seconds, metavar="SECONDS", help="How long the turn may take.")
]
Labels = Annotated[list[str] | None, typer.Option("--label", help="name=value; may be repeated.")]
_PATIENCE = "How long to wait for the end, for ever when absent; the turn goes on."
Wait = Annotated[float | None, typer.Option("--wait", parser=seconds, metavar="SECONDS", help=_PATIENCE)]


def run(
    text: Text = "",
    data: Data = "",
    session: SessionId = "",
    personality: Personality = "",
    on_busy: OnBusy = None,
    timeout: Timeout = None,
    label: Labels = None,
    wait: Wait = None,
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Start a turn, wait for its end and show the answer, the plan and its history.

    Exit codes: 0 succeeded, 6 failed or cancelled, 7 waits for a person, 8 timed out, 9 no server, 2 wrong request,
    130 interrupted: the turn goes on, and its id is on stderr.
    """
    how, message = _how(session, personality, on_busy, timeout, label, key), _message(text, data)

    async def body(client: "Client") -> None:
        turn_id = ""
        try:
            handle = await client.turns.start(message, **how)
            turn_id = handle.id
            await _show_result(handle, wait, as_json(output))
        except asyncio.CancelledError:
            interrupted(turn_id, as_json(output))
            raise

    with_client(endpoint, token, body)


@app.command()
def start(
    text: Text = "",
    data: Data = "",
    session: SessionId = "",
    personality: Personality = "",
    on_busy: OnBusy = None,
    timeout: Timeout = None,
    label: Labels = None,
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Start a turn and print its id; it is durable by then."""
    how, message = _how(session, personality, on_busy, timeout, label, key), _message(text, data)

    async def body(client: "Client") -> None:
        handle = await client.turns.start(message, **how)
        show_id(handle.id, handle.session_id, as_json(output))

    with_client(endpoint, token, body)


@app.command()
def get(turn_id: TurnId, output: Output = None, endpoint: Endpoint = None, token: Token = None) -> None:
    """Show a turn: its plan, every attempt, its output."""

    async def body(client: "Client") -> None:
        show_turn(await client.turns.get(turn_id), as_json(output))

    with_client(endpoint, token, body)


@app.command("list")
def list_(
    session: Annotated[str, typer.Option("--session", help="Only turns of this session.")] = "",
    state: Annotated[Standing | None, typer.Option(help="Only turns that stand there.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 50,
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """List turns, newest first."""

    async def body(client: "Client") -> None:
        rows: list[Turn] = []
        async for turn in client.turns.list(session_id=session, state=state or "unspecified"):
            rows.append(turn)
            if len(rows) == limit:
                break
        if as_json(output):
            show_json(rows)
            return
        table = [
            (t.turn_id, t.session_id, t.state, t.outcome if t.outcome else "", answer_text(t, 60))
            for t in rows
        ]
        show_table(("TURN", "SESSION", "STATE", "OUTCOME", "ANSWER"), table)

    with_client(endpoint, token, body)


@app.command()
def tail(
    turn_id: TurnId,
    after: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Only events after this sequence.")] = 0,
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Follow a turn's events to its end; JSON is one object a line."""

    async def body(client: "Client") -> None:
        async for envelope in client.turns.attach(turn_id).events(after):
            if as_json(output):
                show_json(envelope, line=True)
            else:
                typer.echo(event_line(envelope))

    with_client(endpoint, token, body)


@app.command()
def wait(
    turn_id: TurnId,
    timeout: Annotated[float | None, typer.Option(parser=seconds, metavar="SECONDS", help=_PATIENCE)] = None,
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Wait for the end of a turn; exit codes as for `kfm run`."""

    async def body(client: "Client") -> None:
        await _show_result(client.turns.attach(turn_id), timeout, as_json(output))

    with_client(endpoint, token, body)


@app.command()
def cancel(
    turn_id: TurnId,
    reason: Reason = "",
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """End a turn; effects already done stand and are listed."""

    async def body(client: "Client") -> None:
        show_turn(await client.turns.attach(turn_id).cancel(reason, idempotency_key=key), as_json(output))

    with_client(endpoint, token, body)


@app.command()
def pause(
    turn_id: TurnId,
    reason: Reason = "",
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Start no more steps until `resume`."""

    async def body(client: "Client") -> None:
        show_turn(await client.turns.attach(turn_id).pause(reason, idempotency_key=key), as_json(output))

    with_client(endpoint, token, body)


@app.command()
def resume(
    turn_id: TurnId,
    reason: Reason = "",
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Go on after `pause`."""

    async def body(client: "Client") -> None:
        show_turn(await client.turns.attach(turn_id).resume(reason, idempotency_key=key), as_json(output))

    with_client(endpoint, token, body)


@app.command()
def retry(
    turn_id: TurnId, key: Key = "", output: Output = None, endpoint: Endpoint = None, token: Token = None
) -> None:
    """Run a failed turn again from its failed step, as a new turn."""

    async def body(client: "Client") -> None:
        new = await client.turns.attach(turn_id).retry(idempotency_key=key)
        show_id(new.id, new.session_id, as_json(output))

    with_client(endpoint, token, body)


@app.command()
def fork(
    turn_id: TurnId,
    step: StepKey,
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Run a turn again from a step, as a new turn with keys of its own."""

    async def body(client: "Client") -> None:
        new = await client.turns.attach(turn_id).fork(step, idempotency_key=key)
        show_id(new.id, new.session_id, as_json(output))

    with_client(endpoint, token, body)


@app.command()
def answer(
    turn_id: TurnId,
    step: StepKey,
    value: Annotated[str, typer.Argument(help="The answer as JSON.")],
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Answer a HUMAN step."""

    async def body(client: "Client") -> None:
        turn = await client.turns.attach(turn_id).answer(step, value, idempotency_key=key)
        show_turn(turn, as_json(output))

    with_client(endpoint, token, body)


@app.command()
def settle(
    turn_id: TurnId,
    step: StepKey,
    verdict: Annotated[Verdict, typer.Option("--as", help="succeeded, failed or retry.")],
    value: Annotated[str, typer.Option("--value", help="The step's output as JSON, when it succeeded.")] = "",
    reason: Reason = "",
    key: Key = "",
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Say how a step of unknown outcome ended."""

    async def body(client: "Client") -> None:
        from xenocomm import SettleAs

        turn = await client.turns.attach(turn_id).settle(
            step, SettleAs[verdict.name], output_json=value, reason=reason, idempotency_key=key
        )
        show_turn(turn, as_json(output))

    with_client(endpoint, token, body)


@app.command()
def explain(turn_id: TurnId, output: Output = None, endpoint: Endpoint = None, token: Token = None) -> None:
    """Tell what a turn waits for, until when, and which verb ends it now."""

    async def body(client: "Client") -> None:
        found = await client.turns.attach(turn_id).explain()
        if as_json(output):
            show_json(found)
            return
        show_waits(turn_id, found)

    with_client(endpoint, token, body)


async def _show_result(turn: "TurnHandle", wait: float | None, json_wanted: bool) -> None:
    from xenocomm import TurnUnsuccessful

    try:
        shown = await turn.result(timeout=wait)
    except TurnUnsuccessful as failure:
        # The failure itself is told on stderr.
        show_turn(failure.turn, json_wanted, error=False)
        raise
    show_turn(shown, json_wanted)


def _how(
    session: str,
    personality: str,
    on_busy: Busy | None,
    timeout: float | None,
    labels: list[str] | None,
    key: str,
) -> dict[str, Any]:
    from xenocomm import BusyMode

    pairs = [label.partition("=") for label in labels or ()]
    if bad := [name for name, equals, _ in pairs if not equals]:
        raise typer.BadParameter(f"{bad[0]!r} is not name=value", param_hint="--label")
    return {
        "session_id": session,
        "personality": personality,
        "on_busy": BusyMode[on_busy.name] if on_busy else BusyMode.UNSPECIFIED,
        "timeout": timeout,
        "labels": {name: value for name, _, value in pairs},
        "idempotency_key": key,
    }


def _message(text: str, data: str) -> "str | Part":
    from xenocomm import Part

    if bool(text) == bool(data):
        raise typer.BadParameter("give a message, or --data with one as JSON", param_hint="text")
    if data:
        return Part(data_json=standard_input("--data") if data == "-" else data)
    return standard_input("text") if text == "-" else text
