"""`kfm --describe`: every command with its arguments, options and exit codes, as JSON for programs that call it."""

import enum
import json
from typing import Any

import typer

EXIT_CODES = {
    0: "fine",
    1: "internal, no start, or an answer of no",
    2: "wrong use, request or setting",
    3: "not found",
    4: "not allowed",
    5: "conflict",
    6: "the turn failed or was cancelled",
    7: "the turn waits for a person",
    8: "timed out",
    9: "no server, or overloaded",
    130: "interrupted; the turn goes on",
}


def describe(app: typer.Typer) -> str:
    """The whole tree as one JSON object."""
    root: Any = typer.main.get_command(app)
    found = _command(root, "kfm")
    return json.dumps({**found, "exit_codes": {str(k): v for k, v in EXIT_CODES.items()}}, indent=2)


def _command(command: Any, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "command": path,
        "help": " ".join((command.help or "").split()),
        "parameters": [_parameter(p) for p in command.params if not getattr(p, "hidden", False)],
    }
    below: dict[str, Any] = getattr(command, "commands", {})
    if below:
        found["commands"] = [_command(c, f"{path} {name}") for name, c in below.items() if not c.hidden]
    return found


def _parameter(parameter: Any) -> dict[str, Any]:
    kind = parameter.type_descriptor.annotation
    option = parameter.opts[0].startswith("-")
    found: dict[str, Any] = {
        "name": max(parameter.opts, key=len),
        "kind": "option" if option else "argument",
        "type": getattr(kind, "__name__", str(kind)),
        "required": bool(parameter.required),
        "help": parameter.help or "",
    }
    if option and len(parameter.opts) > 1:
        found["short"] = min(parameter.opts, key=len)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        found |= {"type": "choice", "choices": [member.value for member in kind]}
    if getattr(parameter, "multiple", False):
        found["repeatable"] = True
    return found
