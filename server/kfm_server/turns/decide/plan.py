"""Planning: which planner takes the message, and whether its plan may run."""

from kfm.event.v1 import turn_events_pb2 as ev

from kfm_server.turns.decide.draft import World, error
from kfm_server.turns.plan_validation import validate_plan
from kfm_server.turns.planners import plan
from kfm_server.turns.planners.types import Refused
from kfm_server.turns.state import Turn


def make_plan(turn: Turn, world: World) -> ev.PlanEvent:
    """The plan of a turn as an event: made, or refused with the reason."""
    plan_id = f"{turn.turn_id}:p1"
    planned = plan(tuple(turn.request.input), world.tools)
    if isinstance(planned, Refused):
        return _refused(plan_id, planned)
    steps = validate_plan(planned.steps, world.tools, turn.request.limits.max_steps)
    if isinstance(steps, Refused):
        return _refused(plan_id, steps, planned.planner)
    return ev.PlanEvent(
        plan_id=plan_id,
        change=ev.PLAN_CHANGE_MADE,
        planner=planned.planner,
        complexity=planned.complexity,
        steps=steps,
    )


def taken_over(parent: Turn, plan_id: str, first: str) -> tuple[ev.PlanEvent, list[ev.StepResultEvent]]:
    """The parent's plan for a fork, and the results that it keeps: all that succeeded and do not follow `first`."""
    again = {first}
    for key, step in parent.steps.items():  # plans are in dependency order
        if again.intersection(step.definition.depends_on):
            again.add(key)
    plan_event = ev.PlanEvent(
        plan_id=plan_id,
        change=ev.PLAN_CHANGE_MADE,
        planner=parent.planner,
        steps=[s.definition for s in parent.steps.values()],
    )
    kept = [
        ev.StepResultEvent(
            step_key=k, status=ev.STEP_STATUS_SUCCEEDED, output_json=s.output_json, synthesised=True
        )
        for k, s in parent.steps.items()
        if k not in again and s.output_json
    ]
    return plan_event, kept


def _refused(plan_id: str, why: Refused, planner: str = "") -> ev.PlanEvent:
    return ev.PlanEvent(
        plan_id=plan_id,
        change=ev.PLAN_CHANGE_REFUSED,
        planner=planner,
        error=error(why.reason, why.message),
    )
