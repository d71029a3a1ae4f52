"""Which model of a chain an attempt asks: the configured one, or one that it falls back to. Pure: from recorded failures."""

from collections.abc import Collection, Sequence
from typing import Final

from kfm_server.models import ModelSpec
from kfm_server.recipe import FailedCall

PATIENCE_MS: Final = 5_000
"""A provider that asks for fewer calls, and for no longer a wait than this, is asked again once before another is."""

_PASSING = frozenset(
    {
        "REASON_PROVIDER_UNAVAILABLE",
        "REASON_STEP_TIMEOUT",
        "REASON_PROVIDER_RATE_LIMITED",
        "REASON_MODEL_REPLY_INVALID",
    }
)
_ACCOUNT = frozenset({"401", "402", "403", "404", "429"})
"""Statuses of a refusal that is about the key, the money or the model, and not about what was sent."""


def is_to_blame(call: FailedCall) -> bool:
    """Whether another model may do better: the failure is the provider's, or the model's, and not the call's own."""
    if call.reason in _PASSING or call.reason == "REASON_CONTEXT_OVERFLOW":
        return True
    return call.reason == "REASON_PROVIDER_REJECTED" and call.http_status in _ACCOUNT


def next_model(
    chain: Sequence[ModelSpec], failed: Sequence[FailedCall], refused: Collection[str] = ()
) -> ModelSpec | None:
    """The one that has failed least in this step, of equals the first; None if none is left.

    A model that refused for its account's sake is not asked again, and after an overflow only those that take more.
    `refused`: names of those whose breaker is open.
    """
    windows = {spec.name: spec.context_tokens for spec in chain}
    out = set(refused)
    least = 0
    for call in failed:
        if call.reason == "REASON_CONTEXT_OVERFLOW":
            least = max(least, windows.get(call.model, 0))
        elif call.reason not in _PASSING and is_to_blame(call):
            out.add(call.model)
    left = [spec for spec in chain if spec.name not in out and spec.context_tokens > least]
    return min(left, key=lambda spec: _weight(spec.name, failed), default=None)


def _weight(name: str, failed: Sequence[FailedCall]) -> int:
    own = [call for call in failed if call.model == name and call.reason in _PASSING]
    return len(own) - any(
        call.reason == "REASON_PROVIDER_RATE_LIMITED" and call.retry_after_ms <= PATIENCE_MS for call in own
    )
