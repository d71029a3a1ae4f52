"""What goes into a planner and what comes out."""

from dataclasses import dataclass
from typing import Final

from kfm.type.v1 import type_pb2 as types

from kfm_server.tool_catalogue import ToolCatalogue, ToolEntry, catalogue_digest

PLAN_NOT_POSSIBLE: Final = "REASON_PLAN_NOT_POSSIBLE"
PLAN_INVALID: Final = "REASON_PLAN_INVALID"
STEP_LIMIT_EXCEEDED: Final = "REASON_STEP_LIMIT_EXCEEDED"


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan: who made it, its steps in an order that respects their dependencies, complexity 0 to 100.

    `model`: the model that was chosen, by its configured name; empty for planners that ask none.
    """

    planner: str
    steps: tuple[types.PlanStep, ...]
    complexity: int
    model: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """No plan: a name of kfm.error.v1.Reason, and a sentence that says what would do."""

    reason: str
    message: str


def complexity_of(steps: tuple[types.PlanStep, ...]) -> int:
    """How complex a plan is, 0 to 100: its size and how much of it hangs together."""
    return min(100, 5 * len(steps) + 2 * sum(len(step.depends_on) for step in steps))


__all__ = [
    "PLAN_INVALID",
    "PLAN_NOT_POSSIBLE",
    "STEP_LIMIT_EXCEEDED",
    "Planned",
    "Refused",
    "ToolCatalogue",
    "ToolEntry",
    "catalogue_digest",
    "complexity_of",
]
