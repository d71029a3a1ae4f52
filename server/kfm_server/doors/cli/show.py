"""Turns and events as people read them."""

import json
from typing import TYPE_CHECKING, Any, Final

import typer

from kfm_server.doors.cli.console import command_for
from kfm_server.doors.cli.printing import Form, Format, clean, show_table

if TYPE_CHECKING:
    from datetime import datetime

    from xenocomm import Envelope, Turn
    from xenocomm._gen.types import ExplainTurnResponse


LONGEST_CELL: Final = 4000
"""Most characters of a step's arguments or output that a table shows; of more it shows the first 200."""
LONGEST_ANSWER: Final = 20_000
"""Most characters of an answer that stand above the table; of more it has as many."""
_BEGINNING = 200


def show_id(turn_id: str, session_id: str, form: "Form") -> None:
    """A turn's id: alone, or as JSON beside its session."""
    if form.json:
        form.one({"turn_id": turn_id, "session_id": session_id}, lambda: None, "")
    else:
        typer.echo(turn_id)


def show_turn(turn: "Turn", form: Form, *, error: bool = True, answer: bool = True) -> None:
    """A turn: its answer, how it stands, what it used, its error and its steps, the answer and the error unless told not to;
    or as the form says."""
    form.one(turn, lambda: _turn_table(turn, error=error, answer=answer), "turn_id")


def show_result(turn: "Turn", form: Form, *, shown: str = "") -> None:
    """As `show_turn`, of one that was followed: `shown` is what stands on the screen already of its answer."""
    show_turn(
        turn, form, answer=form.format != Format.TABLE or not shown or answer_text(turn) != clean(shown)
    )


def _turn_table(turn: "Turn", *, error: bool, answer: bool) -> None:
    whole = f"kfm turn get {turn.turn_id} -o json"
    if answer and (text := answer_text(turn)):
        typer.echo(_begun(text, LONGEST_ANSWER, LONGEST_ANSWER, f"{whole} --fields output"))
    outcome = clean(turn.outcome) if turn.outcome else clean(turn.state)
    typer.echo(f"{turn.turn_id}  {outcome}  session {turn.session_id}{usage_text(turn)}")
    if turn.error is not None and error:
        typer.echo(f"error: {clean(turn.error.message)} [{clean(turn.error.reason)}]")
    if why := _fallback(turn):
        typer.echo(f"planned by rules, because: {clean(why)}")
    rows: list[tuple[Any, ...]] = []
    for step in turn.steps:
        plan = step.definition
        key, name = (plan.key, plan.tool or plan.kind) if plan else ("", "")
        arguments = _begun(plan.arguments_json if plan else "", LONGEST_CELL, _BEGINNING, whole)
        told = command_for("output", turn.turn_id, key)
        gave = _begun(step.output_json, LONGEST_CELL, _BEGINNING, told)
        if step.output_bytes and not step.output_json:
            gave = f"({step.output_bytes} bytes; whole: {told})"
        rows.append((key, name, step.state, len(step.attempts), arguments, gave))
    if rows:
        show_table(("STEP", "DOES", "STATE", "TRIES", "ARGUMENTS", "OUTPUT"), rows)


def _begun(text: str, most: int, kept: int, command: str) -> str:
    """The text if it has at most `most` characters, else its first `kept` of them, its size and what prints it whole."""
    return text if len(text) <= most else f"{text[:kept]}…\n({len(text.encode())} bytes; whole: {command})"


def _fallback(turn: "Turn") -> str:
    """Why rules planned in place of a model that failed; empty if they did not."""
    from xenocomm._gen.types import StepState

    if turn.planner != "rules":
        return ""
    failed = (s for s in turn.steps if s.definition and s.definition.model and s.state == StepState.FAILED)
    errors = [attempt.error for step in failed for attempt in step.attempts if attempt.error is not None]
    return f"{errors[-1].message} [{errors[-1].reason}]" if errors else ""


def usage_text(turn: "Turn") -> str:
    """What its models used, in words; nothing where none was called."""
    used = turn.usage
    if used is None or not used.model_calls:
        return ""
    cost = f", {used.cost_nanos / 1e9:.6f} USD" if used.cost_nanos else ""
    return f"  {used.model_calls} model calls, {used.input_tokens}+{used.output_tokens} tokens{cost}"


def show_end(turn: "Turn") -> None:
    """How a turn that waits for nothing ended, and what to type to run it again."""
    from xenocomm import Outcome

    typer.echo(f"{turn.turn_id}  {clean(turn.outcome)}  {time_of(turn.finished_at)}".rstrip())
    if turn.error is not None:
        typer.echo(f"  error     {clean(turn.error.message)} [{clean(turn.error.reason)}]")
    if turn.outcome != Outcome.SUCCEEDED and turn.steps:
        typer.echo(f"  again     {command_for('retry', turn.turn_id, '')}    from what failed, as a new turn")
    if turn.steps:
        typer.echo(
            f"  again     {command_for('fork', turn.turn_id, 'STEP')}    from a step of yours, as a new turn"
        )


def show_waits(turn_id: str, found: "ExplainTurnResponse") -> None:
    """What a turn waits for, a paragraph for each, with what to type to end it."""
    typer.echo(f"{turn_id}  {clean(found.state)}" + ("" if found.waits else "  waits for nothing"))
    for wait in found.waits:
        where = f" of step {wait.step_key}" if wait.step_key else ""
        if wait.blocking_turn_id:
            where = f" behind turn {wait.blocking_turn_id}"
        typer.echo(clean(f"\n{_name(wait.reason)}{where}"))
        if wait.since is not None:
            typer.echo(f"  since     {time_of(wait.since)}")
        if wait.until is not None:
            typer.echo(clean(f"  until     {time_of(wait.until)}, then {wait.then}"))
        for number, verb in enumerate(wait.ended_by):
            step = wait.step_key if _name(verb) in ("answer", "settle") else ""
            label = "        " if number else "ended by"
            typer.echo(clean(f"  {label}  {command_for(_name(verb), turn_id, step)}"))


def _name(member: object) -> str:
    return clean(member).lower().replace("_", " ")


def time_of(at: "datetime | None") -> str:
    """A time to the second, in UTC."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S UTC")


def answer_text(turn: "Turn", most: int = 0) -> str:
    """The answer's text, safe on a terminal, cut to `most` characters if that is not 0."""
    from xenocomm.handle import text_of

    shown = clean(text_of(turn.output))
    return shown if not most or len(shown) <= most else shown[: most - 1] + "…"


def event_line(envelope: "Envelope") -> str:
    """One event on one line: sequence, type, and the fields that say something."""
    from xenocomm.jsonable import to_json

    body = to_json(envelope.event) if envelope.event is not None else {}
    told = {k: v for k, v in body.items() if v not in ("", 0, False, [], {}, "UNSPECIFIED")}
    return clean(f"{envelope.sequence:>4}  {envelope.type:<22} {json.dumps(told, ensure_ascii=False)}")
