"""The planner for those who bring their plan: {"plan": {"steps": [...]}} in a data part."""

from collections.abc import Mapping
from typing import Any, Final

from google.protobuf import duration_pb2
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import canonical_parsed, parse_json
from kfm_server.turns.planners.types import (
    PLAN_INVALID,
    STEP_LIMIT_EXCEEDED,
    Planned,
    Refused,
    ToolCatalogue,
    complexity_of,
)

NAME: Final = "given"
MAX_STEPS: Final = 1000
"""Most steps that a plan may bring; the turn's own limit may be lower."""

_KINDS = {"tool": types.STEP_KIND_TOOL, "human": types.STEP_KIND_HUMAN}
_STEP_KEYS = ("key", "kind", "tool", "arguments", "depends_on", "instructions", "timeout_ms")
_MAX_TIMEOUT_MS = 86_400_000


class _Broken(Exception):
    pass


def brings_plan(input_parts: tuple[types.Part, ...]) -> bool:
    """Whether the message brings a plan; a data part without one is data."""
    return any(
        _holds_plan(part.data_json) for part in input_parts if part.WhichOneof("content") == "data_json"
    )


def _holds_plan(text: str) -> bool:
    try:
        document = parse_json(text)
    except ValueError:
        return True  # let the planner say what is wrong
    return isinstance(document, dict) and "plan" in document


def plan(input_parts: tuple[types.Part, ...], tools: ToolCatalogue) -> Planned | Refused:
    """Read the plan that the message holds, strictly: nothing is guessed, nothing is ignored.

    What the steps mean (tools, dependencies, arguments) is checked by `validate_plan`.
    """
    if len(input_parts) != 1:
        return Refused(PLAN_INVALID, "a message that brings its plan holds one data part and nothing else")
    try:
        document = parse_json(input_parts[0].data_json)
        body = _object(document, "input[0]", ("plan",), required=("plan",))
    except _Broken as broken:
        return Refused(PLAN_INVALID, str(broken))
    except ValueError as error:
        return Refused(PLAN_INVALID, f"input[0]: {error}")
    steps = read_steps(body["plan"])
    if isinstance(steps, Refused):
        return steps
    if not steps:
        return Refused(PLAN_INVALID, "plan.steps: a list with at least one step is needed")
    return Planned(NAME, steps, complexity_of(steps))


def read_steps(value: Any) -> tuple[types.PlanStep, ...] | Refused:
    """The steps of {"steps": [...]}, as a client brings it or a model writes it; possibly none."""
    try:
        listed = _object(value, "plan", ("steps",), required=("steps",))["steps"]
        if not isinstance(listed, list):
            raise _Broken("plan.steps: a list with at least one step is needed")
        if len(listed) > MAX_STEPS:
            return Refused(
                STEP_LIMIT_EXCEEDED, f"plan.steps: {len(listed)} steps; at most {MAX_STEPS} are allowed"
            )
        return tuple(_step(item, f"plan.steps[{index}]") for index, item in enumerate(listed))
    except _Broken as broken:
        return Refused(PLAN_INVALID, str(broken))


def _object(value: Any, path: str, allowed: tuple[str, ...], required: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Broken(f"{path}: an object is needed")
    for name in value:
        if name not in allowed:
            raise _Broken(f"{path}.{name[:80]}: unknown; known are {', '.join(allowed)}")
    for name in required:
        if name not in value:
            raise _Broken(f"{path}.{name}: is missing")
    return value


def _text(step: Mapping[str, Any], name: str, path: str) -> str:
    value = step.get(name, "")
    if not isinstance(value, str):
        raise _Broken(f"{path}.{name}: a text is needed")
    return value


def _step(value: Any, path: str) -> types.PlanStep:
    step = _object(value, path, _STEP_KEYS, required=("key",))
    kind = step.get("kind", "tool")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise _Broken(f"{path}.kind: must be one of {', '.join(_KINDS)}")
    depends_on = step.get("depends_on", [])
    if not isinstance(depends_on, list) or not all(isinstance(name, str) for name in depends_on):
        raise _Broken(f"{path}.depends_on: a list of step keys is needed")
    arguments = step.get("arguments", {})
    if not isinstance(arguments, dict):
        raise _Broken(f"{path}.arguments: an object is needed")
    made = types.PlanStep(
        key=_text(step, "key", path),
        kind=_KINDS[kind],
        tool=_text(step, "tool", path),
        instructions=_text(step, "instructions", path),
        arguments_json=canonical_parsed(arguments),
        depends_on=depends_on,
    )
    if "timeout_ms" in step:
        timeout = step["timeout_ms"]
        if type(timeout) is not int or not 0 < timeout <= _MAX_TIMEOUT_MS:
            raise _Broken(f"{path}.timeout_ms: a whole number from 1 to {_MAX_TIMEOUT_MS} is needed")
        made.timeout.CopyFrom(
            duration_pb2.Duration(seconds=timeout // 1000, nanos=timeout % 1000 * 1_000_000)
        )
    return made
