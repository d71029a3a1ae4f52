"""What a turn has used so far, and what is left for its next model call. Pure."""

from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.state import MODEL_KINDS, Step, Turn


def usage_of(turn: Turn) -> types.Usage:
    """Calls by their dispatches but for those that never started, tokens and money by what results told.

    A call whose process died before it could tell is counted, and its tokens are not: nobody knows them.
    """
    used, tool_calls = types.Usage(), 0
    for step in turn.steps.values():
        kind = step.definition.kind
        if kind in MODEL_KINDS:
            used.model_calls += _calls(step)
            for record in step.history:
                if record.usage is not None:
                    used.input_tokens += record.usage.input_tokens
                    used.output_tokens += record.usage.output_tokens
                    used.cost_nanos += record.usage.cost_nanos
        elif kind != types.STEP_KIND_HUMAN:
            tool_calls += _calls(step)
    used.tool_calls = tool_calls
    return used


def _calls(step: Step) -> int:
    return sum(record.called for record in step.history)


def exceeded(limits: types.Limits, used: types.Usage) -> str:
    """The limit that leaves no room for one more model call, in words; empty if there is room."""
    for name, most, so_far in (
        ("max_model_calls", limits.max_model_calls, used.model_calls),
        ("max_tokens", limits.max_tokens, used.input_tokens + used.output_tokens),
    ):
        if most and so_far >= most:
            return f"the turn has used {so_far} of its limit {name} = {most}"
    most = limits.max_cost_nanos
    if most and used.cost_nanos >= most:
        return f"the turn has used {usd(used.cost_nanos)} of its limit max_cost = {usd(most)} (max_cost_nanos = {most})"
    return ""


def usd(nanos: int) -> str:
    """Money as people write it: `USD 0.25`, to the last 10^-9."""
    whole, rest = divmod(nanos, 10**9)
    return f"USD {whole}" + f".{rest:09d}".rstrip("0").rstrip(".")
