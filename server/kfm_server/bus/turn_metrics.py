"""The group `metrics`: counts turns and model calls, from the journal: once in the whole cluster."""

from collections import OrderedDict
from collections.abc import Sequence

from google.protobuf.message import DecodeError
from kfm.catalogue.errors import KfmError
from kfm.catalogue.events import unpack
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.event.v1.turn_events_pb2 import (
    TURN_CHANGE_FINISHED,
    Outcome,
    StepEvent,
    StepResultEvent,
    StepStatus,
    TurnEvent,
    TurnStateEvent,
)

from kfm_server import metrics
from kfm_server.models import Personality
from kfm_server.ports.bus import Delivery, Group, TryLater
from kfm_server.ports.journal import Journal, JournalUnavailable

_OUTCOMES = {
    value: metrics.TURNS_FINISHED.labels(name.removeprefix("OUTCOME_").lower())
    for name, value in Outcome.items()
    if value
}
_STATUSES = {value: name.removeprefix("STEP_STATUS_").lower() for name, value in StepStatus.items()}
_MOST_OPEN = 10_000
"""Model calls that are remembered until they end; the model of a forgotten one is read from the journal."""
_TOPICS = frozenset(
    {"agent.turns.requests", "agent.turns.events", "agent.steps.requests", "agent.steps.results"}
)


class _Counting:
    """Joins the result of a model call with its dispatch, which alone names the configured model."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._open: OrderedDict[tuple[str, str, int], str] = OrderedDict()

    async def count(self, deliveries: Sequence[Delivery]) -> None:
        """Add what happened to the counters; a call was made if its prompt has a digest. Raises TryLater."""
        for delivery in deliveries:
            event, envelope = delivery.event, delivery.envelope
            if isinstance(event, TurnEvent):
                metrics.TURNS_SUBMITTED.inc()
            elif isinstance(event, TurnStateEvent):
                outcome = _OUTCOMES.get(event.outcome)
                if event.change == TURN_CHANGE_FINISHED and outcome is not None:
                    outcome.inc()
                elif event.personality_json:
                    metrics.TURNS_STARTED.labels(Personality.decode(event.personality_json).name).inc()
            elif isinstance(event, StepEvent):
                if event.model:
                    self._open[envelope.turn_id, event.step_key, envelope.attempt] = event.model
                    if len(self._open) > _MOST_OPEN:
                        self._open.popitem(last=False)
            elif isinstance(event, StepResultEvent) and event.metrics.prompt_digest:
                await self._called(envelope, event)

    async def _called(self, envelope: Envelope, event: StepResultEvent) -> None:
        place = envelope.turn_id, event.step_key, envelope.attempt
        model = self._open.pop(place, None) or await self._model_of(*place)
        usage = event.metrics.usage
        metrics.MODEL_CALLS.labels(model, _STATUSES.get(event.status, "unknown")).inc()
        metrics.MODEL_TOKENS.labels(model, "input").inc(usage.input_tokens)
        metrics.MODEL_TOKENS.labels(model, "output").inc(usage.output_tokens)
        metrics.MODEL_COST.labels(model).inc(usage.cost_nanos / 1e9)
        metrics.MODEL_SECONDS.labels(model).observe(event.metrics.run_time.ToMicroseconds() / 1e6)

    async def _model_of(self, turn_id: str, step_key: str, attempt: int) -> str:
        """From the dispatch in the journal: it came before this process read the partition."""
        try:
            rows = await self._journal.read_turns([turn_id])
        except JournalUnavailable as error:
            raise TryLater from error
        for row in rows:
            try:
                envelope = Envelope.FromString(row.envelope)
                event = unpack(envelope) if envelope.attempt == attempt else None
            except (DecodeError, KfmError):
                continue
            if isinstance(event, StepEvent) and event.step_key == step_key:
                return event.model
        return "unknown"


def turn_metrics(journal: Journal) -> Group:
    """The group itself."""
    return Group("metrics", _TOPICS, _Counting(journal).count, batch=256)
