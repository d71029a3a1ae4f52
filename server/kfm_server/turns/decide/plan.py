"""Planning: which planner takes the message, and whether its plan may run."""

from collections.abc import Sequence

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.decide.draft import World, error
from kfm_server.turns.plan_validation import validate_plan
from kfm_server.turns.planners import plan
from kfm_server.turns.planners.types import Refused
from kfm_server.turns.state import MODEL_KINDS, Turn, is_told

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
        steps = validate_plan(planned.steps, world.tools, turn.request.limits.max_steps)
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


def taken_over(parent: Turn, plan_id: str, first: str) -> tuple[ev.PlanEvent, list[ev.StepResultEvent]]:
    """The parent's plan for a fork, and the results that it keeps: of all that do not follow `first`.

    What a model asked for that runs again is not planned yet: its new reply decides.
    """
    again, unplanned = {first}, set[str]()
    for key, step in parent.steps.items():  # plans are in dependency order
        before = again.intersection(step.definition.depends_on)
        if not before:
            continue
        again.add(key)
        if any(k in unplanned or parent.steps[k].definition.kind in MODEL_KINDS for k in before):
            unplanned.add(key)
    kept = {k: s for k, s in parent.steps.items() if k not in again}
    plan_event = ev.PlanEvent(
        plan_id=plan_id,
        change=ev.PLAN_CHANGE_MADE,
        planner=parent.planner,
        steps=[s.definition for k, s in parent.steps.items() if k not in unplanned],
    )
    results = [
        ev.StepResultEvent(
            step_key=k,
            status=ev.STEP_STATUS_SUCCEEDED if s.output_json else _KEPT_STATUS[s.phase],
            output_json=s.output_json,
            error=None if s.output_json else s.error,
            synthesised=True,
        )
        for k, s in kept.items()
        if s.output_json or (s.phase in _KEPT_STATUS and is_told(parent, s))
    ]
    return plan_event, results


def _refused(plan_id: str, why: Refused, planner: str = "") -> ev.PlanEvent:
    return ev.PlanEvent(
        plan_id=plan_id,
        change=ev.PLAN_CHANGE_REFUSED,
        planner=planner,
        error=error(why.reason, why.message),
    )
