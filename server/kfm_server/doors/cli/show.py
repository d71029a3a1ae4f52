"""Turns and events as people read them."""

import json
from typing import TYPE_CHECKING, Any

import typer

from kfm_server.doors.cli.console import clean, command_for, show_json, show_table

if TYPE_CHECKING:
    from datetime import datetime

    from xenocomm import Envelope, Turn
    from xenocomm._gen.types import ExplainTurnResponse


def show_id(turn_id: str, session_id: str, json_wanted: bool) -> None:
    """A turn's id: alone, or as JSON beside its session."""
    if json_wanted:
        show_json({"turn_id": turn_id, "session_id": session_id})
    else:
        typer.echo(turn_id)


def show_turn(turn: "Turn", json_wanted: bool, *, error: bool = True) -> None:
    """A turn: its answer, how it stands, its error unless told not to, and its steps; or all of it as JSON."""
    if json_wanted:
        show_json(turn)
        return
    if answer := answer_text(turn):
        typer.echo(answer)
    outcome = clean(turn.outcome) if turn.outcome else clean(turn.state)
    typer.echo(f"{turn.turn_id}  {outcome}  session {turn.session_id}")
    if turn.error is not None and error:
        typer.echo(f"error: {clean(turn.error.message)} [{clean(turn.error.reason)}]")
    rows: list[tuple[Any, ...]] = []
    for step in turn.steps:
        plan = step.definition
        name = (plan.tool or plan.kind) if plan else ""
        arguments = plan.arguments_json if plan else ""
        rows.append(
            (plan.key if plan else "", name, step.state, len(step.attempts), arguments, step.output_json)
        )
    if rows:
        show_table(("STEP", "DOES", "STATE", "TRIES", "ARGUMENTS", "OUTPUT"), rows)


def show_waits(turn_id: str, found: "ExplainTurnResponse") -> None:
    """What a turn waits for, a paragraph for each, with what to type to end it."""
    typer.echo(f"{turn_id}  {clean(found.state)}" + ("" if found.waits else "  waits for nothing"))
    for wait in found.waits:
        where = f" of step {wait.step_key}" if wait.step_key else ""
        if wait.blocking_turn_id:
            where = f" behind turn {wait.blocking_turn_id}"
        typer.echo(clean(f"\n{_name(wait.reason)}{where}"))
        if wait.since is not None:
            typer.echo(f"  since     {_time(wait.since)}")
        if wait.until is not None:
            typer.echo(clean(f"  until     {_time(wait.until)}, then {wait.then}"))
        for number, verb in enumerate(wait.ended_by):
            step = wait.step_key if _name(verb) in ("answer", "settle") else ""
            label = "        " if number else "ended by"
            typer.echo(clean(f"  {label}  {command_for(_name(verb), turn_id, step)}"))


def _name(member: object) -> str:
    return clean(member).lower().replace("_", " ")


def _time(at: "datetime") -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S UTC")


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
