"""From the state of a turn to the recipe of a model step's prompt. Pure."""

from kfm.type.v1 import type_pb2 as types

from kfm_server.models import Personality
from kfm_server.recipe import CallOutcome, FailedCall, Purpose, Recipe, Round
from kfm_server.turns.planners.agent import ANSWER_KEY
from kfm_server.turns.state import MODEL_KINDS, Step, Turn


def recipe_of(turn: Turn, step: Step) -> Recipe | None:
    """What the step's prompt is made of; None for steps that are no model calls."""
    definition = step.definition
    if definition.kind not in MODEL_KINDS:
        return None
    purpose: Purpose = "answer"
    if definition.kind == types.STEP_KIND_PLAN:
        purpose = "plan"
    elif definition.key.partition(".")[0] == ANSWER_KEY:
        purpose = "summarise"
    sent = step.dispatch
    return Recipe(
        purpose=purpose,
        model=definition.model,
        personality=Personality.decode(turn.personality_json or "{}"),
        input=tuple(turn.request.input),
        submitted_us=turn.submitted_us,
        output_schema_json=turn.request.output_schema_json,
        rounds=_rounds(turn, step, purpose),
        max_tokens=sent.max_tokens if sent else 0,
        max_cost_nanos=sent.max_cost_nanos if sent else 0,
        failed=_failed(step),
    )


def _failed(step: Step) -> tuple[FailedCall, ...]:
    """The attempts that asked a model in vain."""
    found: list[FailedCall] = []
    for record in step.history:
        if record.error is not None and record.called:
            told = record.error.metadata
            wait = int(told.get("asked_to_wait_ms") or told.get("retry_after_ms") or 0)
            model = told.get("model") or step.definition.model
            found.append(FailedCall(model, record.error.reason, told.get("http_status", ""), wait))
    return tuple(found)


def _rounds(turn: Turn, until: Step, purpose: Purpose) -> tuple[Round, ...]:
    """The model's earlier replies of the same purpose, each with what followed from it, in order."""
    rounds: list[Round] = []
    calls: list[CallOutcome] = []
    said: Step | None = None
    for step in turn.steps.values():
        definition = step.definition
        if definition.kind not in MODEL_KINDS:
            calls.append(_outcome(step))
            continue
        if definition.kind == types.STEP_KIND_PLAN and purpose != "plan":
            continue  # what came of the plan stands in the outcomes of its steps
        if said is not None or calls:
            rounds.append(Round(said.output_json if said else "", tuple(calls), step.feedback))
            calls = []
        if step is until:
            break
        said = step
    return tuple(rounds)


def _outcome(step: Step) -> CallOutcome:
    error = step.error.message if step.error is not None and not step.output_json else ""
    if not step.output_json and not error:
        error = "it did not come to an end"
    sent = step.dispatch
    return CallOutcome(
        key=step.definition.key,
        tool=step.definition.tool or "ask_person",
        arguments_json=sent.parameters_json if sent is not None else step.definition.arguments_json,
        output_json=step.output_json,
        error=error,
    )
