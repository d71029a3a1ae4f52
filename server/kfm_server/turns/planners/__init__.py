"""From a message to a plan. Pure: the same message, personality and catalogue give the same plan."""

from collections.abc import Mapping

from kfm.type.v1 import type_pb2

from kfm_server.models import DEFAULT_PERSONALITY, ModelSpec, Personality
from kfm_server.turns.planners import agent, given, rules
from kfm_server.turns.planners.types import Planned, Refused, ToolCatalogue, ToolEntry, catalogue_digest

_NO_MODELS: Mapping[str, ModelSpec] = {}


def plan(
    input_parts: tuple[type_pb2.Part, ...],
    tools: ToolCatalogue,
    personality: Personality = DEFAULT_PERSONALITY,
    models: Mapping[str, ModelSpec] = _NO_MODELS,
) -> Planned | Refused:
    """Plan a message: one that brings its plan has it, else the personality's planner takes it, with its tools.

    `hybrid` reads text by rules as long as no model is configured.
    The steps are not validated yet: give them to `plan_validation.validate_plan`, but for those of a model.
    """
    has_data = any(part.WhichOneof("content") == "data_json" for part in input_parts)
    if has_data and given.brings_plan(input_parts):
        return given.plan(input_parts, tools)
    if personality.planner == "rules" or (personality.planner == "hybrid" and not models):
        if has_data:
            return given.plan(input_parts, tools)
        return rules.plan(input_parts, agent.tools_of(personality, tools))
    return agent.begin(input_parts, personality, models)


__all__ = ["Planned", "Refused", "ToolCatalogue", "ToolEntry", "catalogue_digest", "plan"]
