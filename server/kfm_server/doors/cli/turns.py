"""`kfm turn ...`: turns from the command line."""

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.completing import session_ids, turn_ids
from kfm_server.doors.cli.console import Endpoint, Key, Token, interrupted, seconds, with_client
from kfm_server.doors.cli.new_turn import PATIENCE, result_of, start
from kfm_server.doors.cli.printing import Fields, Form, Format, Output, clean
from kfm_server.doors.cli.show import answer_text, event_line, show_end, show_id, show_turn, show_waits

if TYPE_CHECKING:
    from xenocomm import Client, Turn, TurnUpdate

app = typer.Typer(no_args_is_help=True, help="Turns: start, watch, steer.")
app.command()(start)

TurnId = Annotated[str, typer.Argument(help="The turn's id.", autocompletion=turn_ids)]
StepKey = Annotated[str, typer.Argument(help="The step's key.")]
Reason = Annotated[str, typer.Option(help="Why, for those who read the history.")]


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


@app.command()
def get(
    turn_id: TurnId,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Show a turn: its plan, every attempt, its output."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        show_turn(await client.turns.get(turn_id), form)

    with_client(endpoint, token, body)


@app.command()
def output(turn_id: TurnId, step_key: StepKey, endpoint: Endpoint = None, token: Token = None) -> None:
    """Print what a step gave, whole, as JSON: also what is too large for `kfm turn get`."""

    async def body(client: "Client") -> None:
        typer.echo(await client.turns.attach(turn_id).step_output(step_key))

    with_client(endpoint, token, body)


@app.command("list")
def list_(
    session: Annotated[
        str, typer.Option("--session", help="Only turns of this session.", autocompletion=session_ids)
    ] = "",
    state: Annotated[Standing | None, typer.Option(help="Only turns that stand there.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 50,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """List turns, newest first."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        rows = await client.turns.list(session_id=session, state=state or "unspecified").first(limit)
        form.rows(rows, ("TURN", "SESSION", "STATE", "OUTCOME", "ANSWER"), _row, "turn_id")

    with_client(endpoint, token, body)


@app.command()
def tail(
    turn_id: TurnId,
    first: Annotated[
        int, typer.Option("--from", min=1, max=2**63 - 1, help="Only events from this sequence on.")
    ] = 1,
    after: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Only events after this sequence.")] = 0,
    deltas: Annotated[
        bool, typer.Option("--deltas", help="Output as it forms, too; it has no sequence.")
    ] = False,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Follow a turn's events to its end, over disconnects and restarts; JSON is one object a line.

    Ctrl-C leaves it (exit code 130) and tells, on stderr, what goes on from there.
    """
    form, at = Form(output, fields), max(after, first - 1)

    async def body(client: "Client") -> None:
        nonlocal at
        try:
            async for update in client.turns.attach(turn_id).updates(at):
                if update.event is not None:
                    form.line(update.event, event_line(update.event), "event_id")
                    at = update.event.sequence
                elif deltas:
                    _show_delta(update, form)
        except asyncio.CancelledError:
            interrupted(turn_id, form.json, at)
            raise

    with_client(endpoint, token, body)


@app.command()
def wait(
    turn_id: TurnId,
    timeout: Annotated[float | None, typer.Option(parser=seconds, metavar="SECONDS", help=PATIENCE)] = None,
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Wait for the end of a turn; exit codes as for `kfm run`."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        try:
            await result_of(client.turns.attach(turn_id), timeout, form)
        except asyncio.CancelledError:
            interrupted(turn_id, form.json)
            raise

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
        show_turn(await client.turns.attach(turn_id).cancel(reason, idempotency_key=key), Form(output))

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
        show_turn(await client.turns.attach(turn_id).pause(reason, idempotency_key=key), Form(output))

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
        show_turn(await client.turns.attach(turn_id).resume(reason, idempotency_key=key), Form(output))

    with_client(endpoint, token, body)


@app.command()
def retry(
    turn_id: TurnId, key: Key = "", output: Output = None, endpoint: Endpoint = None, token: Token = None
) -> None:
    """Run a failed turn again from its failed step, as a new turn."""

    async def body(client: "Client") -> None:
        new = await client.turns.attach(turn_id).retry(idempotency_key=key)
        show_id(new.id, new.session_id, Form(output))

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
        show_id(new.id, new.session_id, Form(output))

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
        show_turn(turn, Form(output))

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
        show_turn(turn, Form(output))

    with_client(endpoint, token, body)


@app.command()
def explain(turn_id: TurnId, output: Output = None, endpoint: Endpoint = None, token: Token = None) -> None:
    """Tell what a turn waits for, until when, and which verb ends it now; of one that ended, how, and what runs it again."""
    form = Form(output)

    async def body(client: "Client") -> None:
        from xenocomm import TurnState

        turn = client.turns.attach(turn_id)
        found = await turn.explain()
        if found.state == TurnState.FINISHED and form.format == Format.TABLE:
            show_end(await turn.get())
        else:
            form.one(found, lambda: show_waits(turn_id, found), "state")

    with_client(endpoint, token, body)


def _row(turn: "Turn") -> tuple[object, ...]:
    outcome = turn.outcome if turn.outcome else ""
    return turn.turn_id, turn.session_id, turn.state, outcome, answer_text(turn, 60)


def _show_delta(update: "TurnUpdate", form: Form) -> None:
    told = update.delta or update.gap
    if told is None or form.format == Format.ID:
        return
    if form.json:
        form.line({"delta" if update.delta else "gap": told}, "", "")
        return
    text = "(some was dropped)"
    if update.delta is not None:
        delta = update.delta
        text = delta.text or delta.reasoning or delta.tool_arguments or delta.progress or ""
    typer.echo(clean(f"      {told.step_key}#{told.attempt}  {text}"))
