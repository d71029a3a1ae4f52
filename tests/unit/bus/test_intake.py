"""What an outsider's event asks for."""

from collections.abc import Sequence

import pytest
from google.protobuf.message import Message
from kfm.catalogue.errors import (
    DeadlineExceeded,
    Draining,
    EventUndecodable,
    InvalidArgument,
    NotOwner,
    Overloaded,
    TurnNotFound,
    Unavailable,
)
from kfm.catalogue.events import fill
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.turn.v1 import turn_service_pb2 as rpc
from kfm.type.v1.type_pb2 import Part
from kfm_server.bus.intake import as_request, requests_group, results_group
from kfm_server.context import ExecutionContext
from kfm_server.ports.broker import RESULTS
from kfm_server.ports.bus import Delivery, TryLater

pytestmark = pytest.mark.requirement("B1", "R6")


def delivered(event: Message, **fields: str) -> Delivery:
    """The event, as a group gets it."""
    envelope = Envelope(event_id="e-1", session_id="ses_a", turn_id="turn_1", **fields)  # type: ignore[arg-type]
    fill(envelope, event)
    return Delivery(0, 1, RESULTS, "ses_a", envelope, event)


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        (ev.TURN_VERB_CANCEL, rpc.CancelTurnRequest),
        (ev.TURN_VERB_PAUSE, rpc.PauseTurnRequest),
        (ev.TURN_VERB_RESUME, rpc.ResumeTurnRequest),
        (ev.TURN_VERB_ANSWER, rpc.AnswerStepRequest),
        (ev.TURN_VERB_SETTLE, rpc.SettleStepRequest),
        (ev.TURN_VERB_RETRY, rpc.RetryTurnRequest),
        (ev.TURN_VERB_FORK, rpc.ForkTurnRequest),
    ],
)
def test_each_verb_is_the_request_that_a_client_would_make(verb: ev.TurnVerb, kind: type[Message]) -> None:
    event = ev.TurnControlEvent(
        verb=verb, reason="why", step_key="a", settle_as=ev.SETTLE_AS_FAILED, output_json="1"
    )
    context, request = as_request(delivered(event).envelope, event)
    assert isinstance(request, kind)
    wanted = {"turn_id": "turn_1", "idempotency_key": "e-1", "reason": "why", "step_key": "a"}
    wanted |= {"settle_as": ev.SETTLE_AS_FAILED, "output_json": "1"}
    names = {field.name for field in request.DESCRIPTOR.fields}
    assert {name: getattr(request, name) for name in names} == {name: wanted[name] for name in names}
    assert context == ExecutionContext(principal="bus")


@pytest.mark.parametrize("verb", [ev.TURN_VERB_UNSPECIFIED, ev.TURN_VERB_WAIT, 99])
def test_a_verb_that_nobody_can_ask_is_refused(verb: ev.TurnVerb) -> None:
    event = ev.TurnControlEvent(verb=verb)
    with pytest.raises(InvalidArgument, match="verb"):
        as_request(delivered(event).envelope, event)


def test_a_turn_is_asked_for_with_what_the_event_says_and_no_more() -> None:
    event = ev.TurnEvent(
        principal="eve",
        personality="p",
        input=[Part(text="hi")],
        on_busy=ev.BUSY_MODE_REJECT,
        labels={"a": "b"},
        policy_reference="mine",
    )
    event.timeout.seconds = 5
    event.limits.max_steps = 7
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    context, request = as_request(delivered(event, tenant_id="t", traceparent=trace).envelope, event)
    assert isinstance(request, rpc.SubmitTurnRequest)
    assert context == ExecutionContext("t", "eve", trace_id=trace.split("-")[1], traceparent=trace)
    spec = request.turn
    assert (spec.session_id, spec.personality, spec.input[0].text) == ("ses_a", "p", "hi")
    assert (spec.timeout.seconds, spec.limits.max_steps, dict(spec.labels)) == (5, 7, {"a": "b"})
    assert request.idempotency_key == "e-1"


@pytest.mark.parametrize("field", ["parent_turn_id", "fork_step_key", "root_turn_id"])
def test_a_turn_that_calls_itself_a_fork_is_refused(field: str) -> None:
    event = ev.TurnEvent(**{field: "x"})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        as_request(delivered(event).envelope, event)


@pytest.mark.parametrize("text", ["x", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_trace_context_that_is_none_is_left_out(text: str) -> None:
    context, _ = as_request(delivered(ev.TurnEvent(), traceparent=text).envelope, ev.TurnEvent())
    assert (context.trace_id, context.traceparent) == ("", "")


@pytest.mark.parametrize("away", [DeadlineExceeded, Draining, NotOwner, Overloaded, Unavailable])
async def test_what_is_away_is_waited_for(away: type[Exception]) -> None:
    async def ask(context: ExecutionContext, request: Message) -> None:
        raise away

    with pytest.raises(TryLater):
        await requests_group(ask).handler([delivered(ev.TurnEvent())])


async def test_a_refusal_is_the_messages_fault() -> None:
    async def ask(context: ExecutionContext, request: Message) -> None:
        raise TurnNotFound

    with pytest.raises(TurnNotFound):
        await requests_group(ask).handler([delivered(ev.TurnEvent())])


async def test_results_go_to_the_callback_and_anything_else_is_no_result() -> None:
    taken: list[tuple[str, str]] = []

    async def result(envelope: Envelope, event: ev.StepResultEvent) -> None:
        taken.append((envelope.turn_id, event.step_key))

    handle = results_group(result).handler
    deliveries: Sequence[Delivery] = [delivered(ev.StepResultEvent(step_key=key)) for key in "ab"]
    await handle(deliveries)
    assert taken == [("turn_1", "a"), ("turn_1", "b")]
    with pytest.raises(EventUndecodable):
        await handle([delivered(ev.TurnEvent())])
