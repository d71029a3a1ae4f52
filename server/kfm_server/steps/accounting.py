"""What a call of a model has used and cost, and its place among the numbers that operators watch."""

from collections.abc import Sequence

from kfm.type.v1 import type_pb2 as types

from kfm_server import metrics
from kfm_server.models import ModelSpec
from kfm_server.ports.models import ModelRequest, TokenUsage, estimated_input, estimated_tokens

MOST_TOKENS = 10**9
"""Most tokens that one call is believed to have read or written: what a provider tells may be nonsense."""
MOST_COST_NANOS = 9 * 10**15
"""Most that one call is said to cost: what the thousand calls of a turn cost has to fit into 64 bits."""


def used_by(usage: TokenUsage, spec: ModelSpec) -> types.Usage:
    """One call of the model, with what it costs."""
    read, written = (min(max(tokens, 0), MOST_TOKENS) for tokens in (usage.input_tokens, usage.output_tokens))
    cost = min(read * (spec.input_nanos or 0) + written * (spec.output_nanos or 0), MOST_COST_NANOS)
    return types.Usage(input_tokens=read, output_tokens=written, cost_nanos=cost, model_calls=1)


def so_far(request: ModelRequest, said: Sequence[str]) -> TokenUsage:
    """What a call that is left within its answer has used: an estimate."""
    return TokenUsage(estimated_input(request), estimated_tokens("".join(said)), known=False)


def count_call(model: str, status: str, usage: types.Usage | None, seconds: float) -> None:
    """Count a call, by the configured name of its model, where it was made."""
    metrics.MODEL_CALLS.labels(model, status).inc()
    metrics.MODEL_SECONDS.labels(model).observe(seconds)
    if usage is not None:
        metrics.MODEL_TOKENS.labels(model, "input").inc(usage.input_tokens)
        metrics.MODEL_TOKENS.labels(model, "output").inc(usage.output_tokens)
        metrics.MODEL_COST.labels(model).inc(usage.cost_nanos / 1e9)
