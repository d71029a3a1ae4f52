"""The intake: what others publish on the broker. Requests start and steer turns, results end attempts; copies are passed over."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from google.protobuf.message import Message
from kfm.catalogue.errors import (
    DeadlineExceeded,
    Draining,
    EventUndecodable,
    InvalidArgument,
    KfmError,
    NotOwner,
    Overloaded,
    Unavailable,
)
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.turn.v1 import turn_service_pb2 as rpc
from kfm.turn.v1.turn_pb2 import TurnSpec

from kfm_server.context import ExecutionContext
from kfm_server.ports.broker import REQUESTS, RESULTS
from kfm_server.ports.bus import Delivery, Group, Retries, TryLater
from kfm_server.trace_ids import parse_traceparent

PRINCIPAL: Final = "bus"
"""Who asks, when an event does not say."""
_LATER = (DeadlineExceeded, Draining, NotOwner, Overloaded, Unavailable)
_RETRIES = Retries(attempts=3, timeout=30.0)

REQUESTS_PROBE: Final = (0.05, 0.05)
"""How long until what somebody published is seen, in seconds: while there is much, and after a while of nothing."""
REQUESTS_LINGER: Final = 0.25
"""Most that is found are copies of our own: a busy partition is read this seldom."""
RESULTS_PROBE: Final = (0.001, 0.05)
"""The same for results: a turn waits for each, so the relay says when one can be expected."""
_RECORDED_SECONDS = 5.0
"""By then a result is in the journal, or its owner has lost the partition."""

Ask = Callable[[ExecutionContext, Message], Awaitable[object]]
"""Makes a request of TurnService as a client would. Raises KfmError."""
TakeResult = Callable[[Envelope, ev.StepResultEvent], Awaitable[None]]
"""Hands the result of an attempt to its owner, which is this process. A late or unknown one is no error."""


def requests_group(ask: Ask) -> Group:
    """The group `intake`. The id of an outsider's event is the key of its request: however often it comes, it counts once.

    What is refused becomes a dead letter, and holds nothing.
    """

    async def take(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            context, request = as_request(delivery.envelope, delivery.event)
            try:
                await ask(context, request)
            except _LATER as away:
                raise TryLater(away.message) from away

    topics = frozenset({REQUESTS})
    return Group("intake", topics, take, retries=_RETRIES, copies=False, holds=False)


def results_group(result: TakeResult) -> Group:
    """The group `results`: what workers on the broker say of their attempts, to the owner of the partition.

    It is recorded after it was taken: whoever takes the partition over reads the last of it again.
    """

    async def take(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if not isinstance(delivery.event, ev.StepResultEvent):
                raise EventUndecodable(f"{delivery.envelope.type} is no result of a step")
            await result(delivery.envelope, delivery.event)

    topics = frozenset({RESULTS})
    return Group(
        "results", topics, take, retries=_RETRIES, copies=False, holds=False, settle=_RECORDED_SECONDS
    )


def as_request(envelope: Envelope, event: Message) -> tuple[ExecutionContext, Message]:
    """What an event asks, as a client would ask it. Raises KfmError for what is no request."""
    if not isinstance(event, ev.TurnEvent | ev.TurnControlEvent):
        raise EventUndecodable(f"{envelope.type} is no request")
    parent = parse_traceparent(envelope.traceparent)
    context = ExecutionContext(
        tenant_id=envelope.tenant_id or "default",
        principal=event.principal or PRINCIPAL,
        trace_id=parent[0] if parent else "",
        traceparent=envelope.traceparent if parent else "",
    )
    key, turn_id = envelope.event_id, envelope.turn_id
    if isinstance(event, ev.TurnEvent):
        return context, rpc.SubmitTurnRequest(turn=_spec(envelope, event), idempotency_key=key)
    request: Message
    match event.verb:
        case ev.TURN_VERB_CANCEL:
            request = rpc.CancelTurnRequest(turn_id=turn_id, reason=event.reason, idempotency_key=key)
        case ev.TURN_VERB_PAUSE:
            request = rpc.PauseTurnRequest(turn_id=turn_id, reason=event.reason, idempotency_key=key)
        case ev.TURN_VERB_RESUME:
            request = rpc.ResumeTurnRequest(turn_id=turn_id, reason=event.reason, idempotency_key=key)
        case ev.TURN_VERB_ANSWER:
            request = rpc.AnswerStepRequest(
                turn_id=turn_id, step_key=event.step_key, output_json=event.output_json, idempotency_key=key
            )
        case ev.TURN_VERB_SETTLE:
            request = rpc.SettleStepRequest(
                turn_id=turn_id,
                step_key=event.step_key,
                settle_as=event.settle_as,
                output_json=event.output_json,
                reason=event.reason,
                idempotency_key=key,
            )
        case ev.TURN_VERB_RETRY:
            request = rpc.RetryTurnRequest(turn_id=turn_id, idempotency_key=key)
        case ev.TURN_VERB_FORK:
            request = rpc.ForkTurnRequest(turn_id=turn_id, step_key=event.step_key, idempotency_key=key)
        case _:
            raise _invalid("verb", "is none that can be asked for")
    return context, request


def _spec(envelope: Envelope, event: ev.TurnEvent) -> TurnSpec:
    if event.parent_turn_id or event.fork_step_key or event.root_turn_id:
        raise _invalid("parent_turn_id", "is the server's: ask for a fork by a TurnControlEvent")
    spec = TurnSpec(
        session_id=envelope.session_id,
        personality=event.personality,
        input=event.input,
        on_busy=event.on_busy,
        limits=event.limits if event.HasField("limits") else None,
        labels=event.labels,
        output_schema_json=event.output_schema_json,
    )
    if event.HasField("timeout"):
        spec.timeout.CopyFrom(event.timeout)
    return spec


def _invalid(path: str, sentence: str) -> KfmError:
    return InvalidArgument(f"{path}: {sentence}", violations=[(path, "intake", sentence)])
