"""Spans of turns, out of their events alone."""

import pytest
from google.protobuf.message import Message
from kfm.catalogue.events import fill
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.type.v1 import type_pb2 as types
from kfm_server.bus.turn_spans import turn_spans
from kfm_server.models import Personality
from kfm_server.ports.tracing import Span
from kfm_server.trace_ids import attempt_traceparent, in_ratio, parse_traceparent

pytestmark = pytest.mark.requirement("V1")
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
BEGUN = 1_700_000_000_000_000


class Told:
    """The events of one turn, a millisecond apart."""

    def __init__(self) -> None:
        self.events: list[tuple[Envelope, Message]] = []
        self.tell(ev.TurnEvent(input=[types.Part(text="what was said")]))
        json = Personality(name="clerk").encode()
        self.tell(ev.TurnStateEvent(change=ev.TURN_CHANGE_STARTED, personality_json=json))

    def tell(self, event: Message, attempt: int = 0) -> "Told":
        number = len(self.events) + 1
        envelope = Envelope(
            event_id=f"turn_1.{number}",
            trace_id=TRACE,
            traceparent=f"00-{TRACE}-{CALLER}-01",
            session_id="ses_1",
            turn_id="turn_1",
            sequence=number,
            attempt=attempt,
        )
        envelope.timestamp.FromMicroseconds(BEGUN + number * 1000)
        fill(envelope, event)
        self.events.append((envelope, event))
        return self

    def planned(self, *keys: str) -> "Told":
        steps = [types.PlanStep(key=key) for key in keys]
        return self.tell(
            ev.PlanEvent(plan_id="turn_1.1", change=ev.PLAN_CHANGE_MADE, planner="given", steps=steps)
        )

    def sent(self, key: str, attempt: int = 1, **fields: object) -> "Told":
        return self.tell(ev.StepEvent(plan_id="turn_1.1", step_key=key, tool="t", **fields), attempt)  # type: ignore[arg-type]

    def came(self, key: str, status: ev.StepStatus, attempt: int = 1, **fields: object) -> "Told":
        return self.tell(ev.StepResultEvent(step_key=key, status=status, **fields), attempt)  # type: ignore[arg-type]

    def ended(self, outcome: ev.Outcome = ev.OUTCOME_SUCCEEDED) -> dict[str, list[Span]]:
        self.tell(ev.TurnStateEvent(change=ev.TURN_CHANGE_FINISHED, outcome=outcome))
        found: dict[str, list[Span]] = {}
        for span in turn_spans(self.events):
            found.setdefault(span.name, []).append(span)
        return found


def test_every_attempt_of_a_retried_step_has_its_span_and_its_error() -> None:
    error = types.Error(reason="REASON_TOOL_UNAVAILABLE")
    told = Told().planned("a").sent("a").came("a", ev.STEP_STATUS_FAILED, error=error)
    told.tell(
        ev.TurnStateEvent(
            change=ev.TURN_CHANGE_WAITING, wait_reason=ev.WAIT_REASON_RETRY_BACKOFF, step_key="a"
        )
    )
    spans = told.sent("a", 2).came("a", ev.STEP_STATUS_SUCCEEDED, 2).ended()
    (turn,), (step,) = spans["turn"], spans["step a"]
    first, second = spans["execute_tool t"]
    assert (first.error, second.error, step.error, turn.error) == ("REASON_TOOL_UNAVAILABLE", "", "", "")
    assert (first.start_us, second.end_us) == (step.start_us, step.end_us)
    assert first.span_id != second.span_id
    assert step.attributes["kfm.step.attempts"] == 2
    waiting = next(m for m in turn.moments if m.name == "waiting")
    assert waiting.attributes == {"kfm.wait_reason": "retry_backoff", "kfm.step_key": "a"}
    assert (turn.parent_id, turn.attributes["gen_ai.agent.name"]) == (CALLER, "clerk")


def test_a_step_that_never_ran_and_one_that_never_ended_have_spans_within_the_turn() -> None:
    spans = (
        Told().planned("a", "b").sent("a").came("b", ev.STEP_STATUS_SKIPPED, 0).ended(ev.OUTCOME_TIMED_OUT)
    )
    (turn,), (skipped,), (running,) = spans["turn"], spans["step b"], spans["execute_tool t"]
    assert skipped.attributes["kfm.step.status"] == "skipped"
    assert skipped.parent_id == spans["plan given"][0].span_id
    assert (running.end_us, running.error) == (turn.end_us, "REASON_FENCED")
    assert turn.error == "timed_out"


def test_a_person_a_model_and_a_step_before_any_plan_are_told_apart() -> None:
    told = Told()
    told.tell(ev.StepEvent(step_key="plan", step_type=types.STEP_KIND_PLAN, model="small"), 1)
    used = types.Usage(input_tokens=7, output_tokens=2, model_calls=1)
    told.came("plan", ev.STEP_STATUS_SUCCEEDED, metrics=ev.StepMetrics(usage=used, model="small-2"))
    spans = (
        told.planned("h")
        .sent("h", step_type=types.STEP_KIND_HUMAN)
        .came("h", ev.STEP_STATUS_SUCCEEDED)
        .ended()
    )
    (chat,), (human,) = spans["chat small"], spans["human"]
    assert chat.kind == "client"
    assert chat.attributes["gen_ai.response.model"] == "small-2"
    assert spans["step plan"][0].parent_id == spans["turn"][0].span_id
    assert human.parent_id == spans["step h"][0].span_id


def test_a_quick_step_takes_the_time_that_it_ran() -> None:
    told = Told().planned("a").sent("a")
    metrics_ = ev.StepMetrics()
    metrics_.run_time.FromMicroseconds(3500)
    (tool,) = told.came("a", ev.STEP_STATUS_SUCCEEDED, metrics=metrics_).ended()["execute_tool t"]
    assert tool.end_us - tool.start_us == 3500


def test_the_same_events_give_the_same_spans_and_no_content() -> None:
    told = (
        Told()
        .planned("a")
        .sent("a", parameters_json='{"x": "what was said"}')
        .came("a", ev.STEP_STATUS_SUCCEEDED)
    )
    told.ended()
    assert turn_spans(told.events) == turn_spans(told.events)
    assert "what was said" not in repr(turn_spans(told.events))
    assert "what was said" in repr(turn_spans(told.events, content=True))
    assert turn_spans(told.events[1:]) == []


def test_what_an_attempt_calls_has_its_span_as_parent() -> None:
    spans = Told().planned("a").sent("a").came("a", ev.STEP_STATUS_SUCCEEDED).ended()
    handed_on = attempt_traceparent(TRACE, f"00-{TRACE}-{CALLER}-01", "turn_1", "a", 1)
    assert parse_traceparent(handed_on) == (TRACE, spans["execute_tool t"][0].span_id, True)
    assert attempt_traceparent(TRACE, "", "turn_1", "a", 1) == ""


@pytest.mark.parametrize(
    "text",
    ["", "00", f"00-{'0' * 32}-{CALLER}-01", f"00-{TRACE}-{'0' * 16}-01", f"01-{TRACE}-{CALLER}-01", f"00-{TRACE}-{CALLER}-01\n"],
)  # fmt: skip
def test_what_is_no_trace_context_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_a_ratio_keeps_its_share_and_all_agree_which() -> None:
    ids = [f"{n * 0x9E3779B97F4A7C15 % 2**64:032x}" for n in range(1, 2001)]
    kept = {id for id in ids if in_ratio(id, 0.25)}
    assert 400 < len(kept) < 600
    assert kept <= {id for id in ids if in_ratio(id, 0.5)}
    assert (in_ratio(TRACE, 0), in_ratio(TRACE, 1)) == (False, True)
