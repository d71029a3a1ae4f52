"""Planners that ask a model: where they begin, and which model the router takes. Pure."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from google.protobuf import duration_pb2
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import parse_json
from kfm_server.models import EVERY_TOOL, ModelSpec, Personality
from kfm_server.tool_catalogue import ToolEntry
from kfm_server.turns.planners.complexity import message_complexity
from kfm_server.turns.planners.types import PLAN_NOT_POSSIBLE, Planned, Refused, ToolCatalogue

ASK_PERSON: Final = "ask_person"
"""The call by which a model asks a person; offered where the personality's tools name it."""
PLAN_KEY: Final = "plan"
ANSWER_KEY: Final = "answer"
RESERVED: Final = frozenset({PLAN_KEY, ANSWER_KEY})


def begin(
    parts: Sequence[types.Part], personality: Personality, models: Mapping[str, ModelSpec]
) -> Planned | Refused:
    """The first step: a model call that plans, or that answers with tools at hand."""
    complexity = message_complexity(parts)
    model = route(complexity, personality, models)
    if model is None:
        wanted = ", ".join(personality.models) or "any"
        return Refused(
            PLAN_NOT_POSSIBLE,
            f"the planner {personality.planner} needs a model; personality {personality.name!r} names {wanted}, and that is not configured",
        )
    kind, key = types.STEP_KIND_MODEL, "m1"
    if personality.planner == "plan":
        kind, key = types.STEP_KIND_PLAN, PLAN_KEY
    return Planned(personality.planner, (model_step(key, kind, model),), complexity, model.name)


def tools_of(personality: Personality, tools: ToolCatalogue) -> ToolCatalogue:
    """The tools that a personality may call."""
    if personality.tools is not None and EVERY_TOOL not in personality.tools:
        tools = {name: tools[name] for name in personality.tools if name in tools}
    return with_own(personality, tools)


def with_own(personality: Personality, tools: ToolCatalogue) -> ToolCatalogue:
    """The tools but those that are reserved for others, and those that the personality brings."""
    named = personality.tools or ()
    open_to_it = {name: tool for name, tool in tools.items() if not tool.reserved or name in named}
    return {**open_to_it, **own_tools(personality)} if personality.own_tools else open_to_it


@lru_cache(maxsize=64)
def own_tools(personality: Personality) -> ToolCatalogue:
    """The tools that a personality brings, as a catalogue."""
    return {
        tool.name: ToolEntry(
            tool.name, tool.description, types.EFFECT_CONTRACT_PURE, parse_json(tool.schema_json)
        )
        for tool in personality.own_tools
    }


def route(complexity: int, personality: Personality, models: Mapping[str, ModelSpec]) -> ModelSpec | None:
    """The first model of the personality that takes messages of this complexity, else its last one."""
    configured = [models[name] for name in personality.models or models if name in models]
    return next(
        (m for m in configured if complexity <= m.max_complexity), configured[-1] if configured else None
    )


def model_step(
    key: str, kind: types.StepKind, model: ModelSpec | types.PlanStep, depends_on: Sequence[str] = ()
) -> types.PlanStep:
    """A model call as a step; of the same model as an earlier step, if that is given."""
    step = types.PlanStep(
        key=key,
        kind=kind,
        arguments_json="{}",
        effect=types.EFFECT_CONTRACT_IDEMPOTENT,
        depends_on=depends_on,
    )
    if isinstance(model, types.PlanStep):
        step.model = model.model
        step.timeout.CopyFrom(model.timeout)
        return step
    step.model = model.name
    millis = max(1, round(model.timeout_seconds * 1000))
    step.timeout.CopyFrom(duration_pb2.Duration(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000))
    return step


def following(key: str) -> str:
    """The key of the model step after this one: m1, m2; plan, plan.2; answer, answer.2."""
    if key in RESERVED:
        return f"{key}.2"
    base = key.rstrip("0123456789")
    return f"{base}{int(key[len(base) :]) + 1}"
