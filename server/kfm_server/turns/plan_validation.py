"""The plan's checks: what passes can be run. Pure; never raises."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf import duration_pb2
from jsonschema_rs import ValidationError
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import canonical_parsed, parse_json
from kfm_server.tool_catalogue import ToolCatalogue, describe
from kfm_server.turns.planners.types import PLAN_INVALID, STEP_LIMIT_EXCEEDED, Refused
from kfm_server.turns.references import UnresolvedReference, find_references

MAX_ARGUMENTS_BYTES: Final = 256 * 1024
"""Largest `arguments_json` of one step, in bytes."""
MAX_INSTRUCTIONS: Final = 8192
"""Longest `instructions` of one step, in characters."""
MAX_TIMEOUT_S: Final = 86_400
"""Longest timeout of one step, in seconds."""

KEY: Final = re.compile(r"[a-z0-9_.-]{1,64}")
"""What the key of a step may be."""
_STRUCTURAL = frozenset(
    ("required", "additionalProperties", "propertyNames", "maxProperties", "minProperties")
)
_SUPPORTED = (types.STEP_KIND_TOOL, types.STEP_KIND_HUMAN)


_HERE = ("", "local")
"""How a plan names the server itself where it names worker pools."""


class _Invalid(Exception):
    def __init__(self, message: str, reason: str = PLAN_INVALID) -> None:
        super().__init__(message)
        self.refused = Refused(reason, message)


def validate_plan(
    steps: Sequence[types.PlanStep],
    tools: ToolCatalogue,
    max_steps: int,
    earlier: Mapping[str, types.PlanStep] | None = None,
    others: Sequence[str] = (),
) -> tuple[types.PlanStep, ...] | Refused:
    """Check the steps and pin what the catalogue says of their tools.

    Args:
        steps: what a planner made, or a client brought. Not changed.
        tools: the catalogue that the turn pins.
        max_steps: most steps of the turn, `earlier` included.
        earlier: steps that the turn already has, by key; new ones may depend on them.
        others: what can be called besides and is no tool; only named to who asks for an unknown one.

    Returns:
        Copies of the steps, each behind those it depends on, with canonical arguments, effect and compensation from the catalogue, and
        the dependencies that references imply; or why not, naming the step.
    """
    known = dict(earlier or {})
    try:
        if not steps:
            raise _Invalid("the plan has no steps")
        if len(steps) + len(known) > max_steps:
            raise _Invalid(
                f"the plan has {len(steps) + len(known)} steps; at most {max_steps} are allowed",
                STEP_LIMIT_EXCEEDED,
            )
        checked: dict[str, types.PlanStep] = {}
        arguments: dict[str, Any] = {}
        for index, step in enumerate(steps):
            _check_key(index, step, known, checked)
            checked[step.key], arguments[step.key] = _check_step(step, tools, others)
        everything = known | checked
        for step in checked.values():
            _check_dependencies(step, everything)
        below = _closures(everything)
        implied = False
        for key, step in checked.items():
            implied |= _imply(step, arguments[key], everything, below[key])
        if implied:
            below = _closures(everything)
        for key, step in checked.items():
            _check_arguments(step, arguments[key], tools)
        return tuple(checked[key] for key in below if key in checked)
    except _Invalid as invalid:
        return invalid.refused


def _check_key(
    index: int, step: types.PlanStep, known: Mapping[str, Any], checked: Mapping[str, Any]
) -> None:
    if not KEY.fullmatch(step.key):
        raise _Invalid(f"steps[{index}].key: {step.key[:80]!r} is not 1 to 64 characters of a-z 0-9 _ . -")
    if step.key in checked or step.key in known:
        raise _Invalid(f"steps[{index}].key: {step.key!r} is used twice")


def _check_step(
    step: types.PlanStep, tools: ToolCatalogue, others: Sequence[str]
) -> tuple[types.PlanStep, Any]:
    where = f"step {step.key!r}"
    if step.kind not in _SUPPORTED:
        raise _Invalid(f"{where}: its kind is not supported; use tool or human")
    if len(step.instructions) > MAX_INSTRUCTIONS:
        raise _Invalid(f"{where}: its instructions are longer than {MAX_INSTRUCTIONS} characters")
    if step.HasField("timeout"):
        _check_timeout(where, step.timeout)
    if len(step.arguments_json.encode()) > MAX_ARGUMENTS_BYTES:
        raise _Invalid(f"{where}: its arguments are larger than {MAX_ARGUMENTS_BYTES} bytes")
    try:
        arguments = parse_json(step.arguments_json or "{}")
        text = canonical_parsed(arguments)
    except ValueError as error:
        raise _Invalid(f"{where}: its arguments are {error}") from None
    if not isinstance(arguments, dict):
        raise _Invalid(f"{where}: its arguments are not an object")
    copy = types.PlanStep()
    copy.CopyFrom(step)
    copy.arguments_json = text
    copy.compensation_tool = ""
    if step.kind == types.STEP_KIND_HUMAN:
        if step.tool:
            raise _Invalid(f"{where}: a human step has no tool")
        if not step.instructions.strip():
            raise _Invalid(f"{where}: a human step needs instructions: the question to ask")
        if step.pool not in _HERE:
            raise _Invalid(f"{where}: a human step has no worker pool")
        copy.effect = types.EFFECT_CONTRACT_PURE
        return copy, arguments
    entry = tools.get(step.tool)
    if entry is None:
        names = ", ".join((*sorted(tools), *others)) or "none"
        raise _Invalid(f"{where}: there is no tool {step.tool[:80]!r}; there are: {names}")
    if step.pool not in ((entry.pool, "") if entry.pool else _HERE):
        raise _Invalid(
            f"{where}: the pool {step.pool[:80]!r} does not serve {step.tool!r}; {entry.pool or 'local'!r} does"
        )
    copy.pool = entry.pool
    copy.effect = entry.effect or types.EFFECT_CONTRACT_AT_MOST_ONCE
    if entry.effect == types.EFFECT_CONTRACT_COMPENSATABLE:
        if entry.compensation not in tools:
            raise _Invalid(f"{where}: the tool that undoes {step.tool!r} is not in the catalogue")
        copy.compensation_tool = entry.compensation
    return copy, arguments


def _check_timeout(where: str, timeout: duration_pb2.Duration) -> None:
    nanos = timeout.seconds * 1_000_000_000 + timeout.nanos
    if not 0 < nanos <= MAX_TIMEOUT_S * 1_000_000_000:
        raise _Invalid(f"{where}: its timeout is not above 0 and at most {MAX_TIMEOUT_S} s")


def _check_dependencies(step: types.PlanStep, everything: Mapping[str, types.PlanStep]) -> None:
    names = list(dict.fromkeys(step.depends_on))
    for name in names:
        if name == step.key:
            raise _Invalid(f"step {step.key!r}: depends on itself")
        if name not in everything:
            raise _Invalid(f"step {step.key!r}: depends on {name[:80]!r}, which is not in the plan")
    if len(names) != len(step.depends_on):
        del step.depends_on[:]
        step.depends_on.extend(names)


def _closures(steps: Mapping[str, types.PlanStep]) -> dict[str, frozenset[str]]:
    """All that each step waits for, directly or not, in an order that can be run. Refuses a cycle and names it."""
    closures: dict[str, frozenset[str]] = {}
    waiting = dict(steps)
    while waiting:
        before = len(waiting)
        for key in list(waiting):
            direct = waiting[key].depends_on
            if all(name in closures for name in direct):
                del waiting[key]
                closures[key] = frozenset(direct).union(*(closures[name] for name in direct))
        if len(waiting) == before:
            raise _Invalid(f"the steps wait for each other in a circle: {' -> '.join(_circle(waiting))}")
    return closures


def _circle(waiting: Mapping[str, types.PlanStep]) -> list[str]:
    path: list[str] = [next(iter(waiting))]
    while True:
        following = next(name for name in waiting[path[-1]].depends_on if name in waiting)
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def _imply(
    step: types.PlanStep, arguments: Any, everything: Mapping[str, types.PlanStep], below: frozenset[str]
) -> bool:
    added = False
    if not _may_refer(step):
        return False
    try:
        for reference in find_references(arguments):
            if reference.step == step.key:
                raise _Invalid(f"step {step.key!r}: its arguments refer to itself")
            if reference.step not in everything:
                raise _Invalid(
                    f"step {step.key!r}: its arguments refer to {reference.step!r}, which is not in the plan"
                )
            if reference.step not in below and reference.step not in step.depends_on:
                step.depends_on.append(reference.step)
                added = True
    except UnresolvedReference as error:
        raise _Invalid(f"step {step.key!r}: arguments {error}") from None
    return added


def _may_refer(step: types.PlanStep) -> bool:
    return '"$ref"' in step.arguments_json


def _check_arguments(step: types.PlanStep, arguments: dict[str, Any], tools: ToolCatalogue) -> None:
    if step.kind != types.STEP_KIND_TOOL:
        return
    entry = tools[step.tool]
    places = [reference.place for reference in find_references(arguments)] if _may_refer(step) else []
    if not places:
        problem = entry.problem(arguments)
    else:
        found = next((error for error in entry.errors(arguments) if _certain(error, places)), None)
        problem = "" if found is None else describe(found)
    if problem:
        raise _Invalid(f"step {step.key!r}: the arguments of {step.tool!r} do not fit: {problem}")


def _certain(error: ValidationError, places: list[tuple[str | int, ...]]) -> bool:
    """Whether the error stands whatever the references come to."""
    path = tuple(error.instance_path)
    for place in places:
        if path[: len(place)] == place:
            return False
        if place[: len(path)] == path and error.schema_path[-1] not in _STRUCTURAL:
            return False
    return True
