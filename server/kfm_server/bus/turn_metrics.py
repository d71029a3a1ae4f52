"""The group `metrics`: counts turns that were submitted and that ended, once in the whole cluster."""

from collections.abc import Sequence

from kfm.event.v1.turn_events_pb2 import TURN_CHANGE_FINISHED, Outcome, TurnEvent, TurnStateEvent

from kfm_server import metrics
from kfm_server.ports.bus import Delivery, Group

_OUTCOMES = {
    value: metrics.TURNS_FINISHED.labels(name.removeprefix("OUTCOME_").lower())
    for name, value in Outcome.items()
    if value
}


async def count(deliveries: Sequence[Delivery]) -> None:
    """Add what ended to the counters."""
    for delivery in deliveries:
        event = delivery.event
        if isinstance(event, TurnEvent):
            metrics.TURNS_SUBMITTED.inc()
        elif isinstance(event, TurnStateEvent) and event.change == TURN_CHANGE_FINISHED:
            outcome = _OUTCOMES.get(event.outcome)
            if outcome is not None:
                outcome.inc()


METRICS = Group("metrics", frozenset({"agent.turns.requests", "agent.turns.events"}), count, batch=256)
"""The group itself."""
