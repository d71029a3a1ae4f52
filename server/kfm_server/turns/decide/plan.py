"""Planning: which planner takes the message, and whether its plan may run."""

from collections.abc import Sequence

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.decide.draft import World, error
from kfm_server.turns.plan_validation import validate_plan
from kfm_server.turns.planners import plan, rules
from kfm_server.turns.planners.agent import with_own
from kfm_server.turns.planners.types import PLAN_INVALID, Refused
from kfm_server.turns.state import MODEL_KINDS, Step, Turn, outlived, told_of

_KEPT_STATUS = {
    api.STEP_STATE_FAILED: ev.STEP_STATUS_FAILED,
    api.STEP_STATE_SKIPPED: ev.STEP_STATUS_SKIPPED,
}
"""How a step may have ended that a model was told about, other than well."""


def make_plan(turn: Turn, world: World) -> ev.PlanEvent:
    """The plan of a turn as an event: made, or refused with the reason."""
    plan_id = next_plan_id(turn)
    personality = world.personality(turn.request.personality)
    if personality is None:  # it was there when the turn was accepted
        gone = f"the personality {turn.request.personality!r} is not configured any more"
        return _refused(plan_id, Refused("REASON_PERSONALITY_NOT_FOUND", gone))
    planned = plan(tuple(turn.request.input), world.tools, personality, world.models)
    if isinstance(planned, Refused):
        return _refused(plan_id, planned)
    steps: Sequence[types.PlanStep] | Refused = planned.steps
    if not planned.model:
        tools = with_own(personality, world.tools)
        steps = validate_plan(planned.steps, tools, turn.request.limits.max_steps)
    if isinstance(steps, Refused):
        return _refused(plan_id, steps, planned.planner)
    return ev.PlanEvent(
        plan_id=plan_id,
        change=ev.PLAN_CHANGE_MADE,
        planner=planned.planner,
        model=planned.model,
        complexity=planned.complexity,
        steps=steps,
    )


def next_plan_id(turn: Turn) -> str:
    """The id of the turn's next plan event."""
    return f"{turn.turn_id}:p{turn.plans + 1}"


def retry_from(parent: Turn) -> str:
    """The first step that the turn did not get over; empty if there is none."""
    told = told_of(parent)
    left = (s for s in parent.steps.values() if s.phase != api.STEP_STATE_SUCCEEDED)
    return next((s.definition.key for s in left if not outlived(parent, s, told)), "")


def taken_over(parent: Turn, turn_id: str, first: str) -> tuple[list[ev.PlanEvent], list[ev.StepResultEvent]]:
    """The parent's plan for a fork, and the results that it keeps: of all that do not follow `first`.

    What was planned behind a model step that runs again is left out: its new reply decides. What was wrong with
    a reply stays with the step that tries again.
    """
    again, steps, asks = {first}, list[Step](), False
    for key, step in parent.steps.items():  # in the order in which they were planned
        steps.append(step)
        if again.intersection(step.definition.depends_on):
            again.add(key)
        if key in again and step.definition.kind in MODEL_KINDS:
            asks = True
            break
    # Only hybrid has rules behind a model that failed.
    planner = "hybrid" if asks and parent.planner == rules.NAME else parent.planner
    plans: list[ev.PlanEvent] = []
    for definitions, feedback in _batches(steps):
        change = ev.PLAN_CHANGE_EXTENDED if plans else ev.PLAN_CHANGE_MADE
        plans.append(
            ev.PlanEvent(
                plan_id=f"{turn_id}:p{len(plans) + 1}",
                change=ev.PLAN_CHANGE_REPAIRED if feedback else change,
                planner=planner,
                steps=definitions,
                error=error(PLAN_INVALID, feedback) if feedback else None,
            )
        )
    told = told_of(parent)
    results = [
        ev.StepResultEvent(
            step_key=s.definition.key,
            status=ev.STEP_STATUS_SUCCEEDED if s.output_json else _KEPT_STATUS[s.phase],
            output_json=s.output_json,
            error=None if s.output_json else s.error,
            synthesised=True,
        )
        for s in steps
        if s.definition.key not in again and (s.output_json or outlived(parent, s, told))
    ]
    return plans, results


def _batches(steps: Sequence[Step]) -> list[tuple[list[types.PlanStep], str]]:
    """The steps as plan events can tell them: what was wrong is said of every model step of an event."""
    batches: list[tuple[list[types.PlanStep], str]] = []
    batch: list[types.PlanStep] = []
    for step in steps:
        if step.feedback and any(s.kind in MODEL_KINDS for s in batch):
            batches.append((batch, ""))
            batch = []
        batch.append(step.definition)
        if step.feedback:
            batches.append((batch, step.feedback))
            batch = []
    return [*batches, (batch, "")] if batch else batches


def _refused(plan_id: str, why: Refused, planner: str = "") -> ev.PlanEvent:
    return ev.PlanEvent(
        plan_id=plan_id,
        change=ev.PLAN_CHANGE_REFUSED,
        planner=planner,
        error=error(why.reason, why.message),
    )
