"""From a message to a plan. Pure: the same message and catalogue give the same plan."""

from kfm.type.v1 import type_pb2

from kfm_server.turns.planners import given, rules
from kfm_server.turns.planners.types import Planned, Refused, ToolCatalogue, ToolEntry, catalogue_digest


def plan(input_parts: tuple[type_pb2.Part, ...], tools: ToolCatalogue) -> Planned | Refused:
    """Plan a message: a data part brings its own plan, text is read by rules.

    The steps are not validated yet: give them to `plan_validation.validate_plan`.
    """
    if any(part.WhichOneof("content") == "data_json" for part in input_parts):
        return given.plan(input_parts, tools)
    return rules.plan(input_parts, tools)


__all__ = ["Planned", "Refused", "ToolCatalogue", "ToolEntry", "catalogue_digest", "plan"]
