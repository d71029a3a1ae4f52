"""The group `metrics`: counts turns, from the journal: once in the whole cluster."""

from collections.abc import Sequence

from kfm.event.v1.turn_events_pb2 import TURN_CHANGE_FINISHED, Outcome, TurnEvent, TurnStateEvent

from kfm_server import metrics
from kfm_server.models import Personality
from kfm_server.ports.bus import Delivery, Group

_OUTCOMES = {
    value: metrics.TURNS_FINISHED.labels(name.removeprefix("OUTCOME_").lower())
    for name, value in Outcome.items()
    if value
}
# Not the topics of steps: they are most of all events, and to read them here costs each turn 5 %.
_TOPICS = frozenset({"agent.turns.requests", "agent.turns.events"})


async def _count(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        event = delivery.event
        if isinstance(event, TurnEvent):
            metrics.TURNS_SUBMITTED.inc()
        elif isinstance(event, TurnStateEvent):
            outcome = _OUTCOMES.get(event.outcome)
            if event.change == TURN_CHANGE_FINISHED and outcome is not None:
                outcome.inc()
            elif event.personality_json:
                metrics.TURNS_STARTED.labels(Personality.decode(event.personality_json).name).inc()


TURN_METRICS = Group("metrics", _TOPICS, _count, batch=256)
"""The group itself."""
