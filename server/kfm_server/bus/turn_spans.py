"""The spans of a turn that has ended, out of its events: turn > plan > step > model, tool or person."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.event.v1.envelope_pb2 import Envelope
from kfm.type.v1 import type_pb2 as types

from kfm_server.models import Personality
from kfm_server.ports.tracing import Attribute, Moment, Span
from kfm_server.trace_ids import attempt_span_id, parse_traceparent, span_id

_CONTENT_CHARACTERS = 8192
"""Longest text of content in one attribute; the rest is cut."""


def _words(enum: Any, prefix: str) -> dict[int, str]:
    return {number: name.removeprefix(prefix).lower() for name, number in enum.items()}


_PLANCHANGE = _words(ev.PlanChange, "PLAN_CHANGE_")
_TURNVERB = _words(ev.TurnVerb, "TURN_VERB_")
_WAITREASON = _words(ev.WaitReason, "WAIT_REASON_")
_TURNCHANGE = _words(ev.TurnChange, "TURN_CHANGE_")
_STEPSTATUS = _words(ev.StepStatus, "STEP_STATUS_")
_OUTCOME = _words(ev.Outcome, "OUTCOME_")
_EFFECTCONTRACT = _words(types.EffectContract, "EFFECT_CONTRACT_")


@dataclass(slots=True)
class _Attempt:
    """One attempt of a step: its dispatch, and its result once there is one."""

    number: int
    sent: ev.StepEvent
    start_us: int
    end_us: int = 0
    result: ev.StepResultEvent | None = None


@dataclass(slots=True)
class _Step:
    """A step, by its attempts."""

    key: str
    plan_id: str
    start_us: int
    end_us: int
    status: str = ""
    reason: str = ""
    attempts: list[_Attempt] = field(default_factory=list[_Attempt])


@dataclass(slots=True)
class _Plan:
    """A plan, until the last of its steps."""

    event: ev.PlanEvent
    start_us: int
    end_us: int


def turn_spans(events: Iterable[tuple[Envelope, Message]], *, content: bool = False) -> list[Span]:
    """Spans of one turn, in the order of its events, the turn's own first; none for a turn without a beginning.

    `content`: with messages, arguments and outputs. The same events give the same spans, ids included.
    """
    return _Tree(content).spans(events)


class _Tree:
    def __init__(self, content: bool) -> None:
        self._content = content
        self._plans: dict[str, _Plan] = {}
        self._steps: dict[str, _Step] = {}
        self._moments: list[Moment] = []
        self._first: Envelope | None = None
        self._request = ev.TurnEvent()
        self._end = ev.TurnStateEvent()
        self._personality = ""
        self._last_us = 0

    def spans(self, events: Iterable[tuple[Envelope, Message]]) -> list[Span]:
        """See turn_spans."""
        for envelope, payload in events:
            at = envelope.timestamp.ToMicroseconds()
            self._last_us = max(self._last_us, at)
            self._take(envelope, payload, at)
        first = self._first
        if first is None:
            return []
        trace_id, turn_id = first.trace_id, first.turn_id
        mine = span_id(turn_id)
        found = [self._turn(first, mine)]
        for plan_id, plan in self._plans.items():
            found.append(
                Span(
                    trace_id,
                    span_id(turn_id, "plan", plan_id),
                    mine,
                    f"plan {plan.event.planner}".strip(),
                    plan.start_us,
                    plan.end_us,
                    attributes=_without_nothing(
                        {
                            "kfm.plan_id": plan_id,
                            "kfm.planner": plan.event.planner,
                            "kfm.plan.change": _PLANCHANGE.get(plan.event.change, ""),
                            "kfm.plan.steps": len(plan.event.steps),
                            "kfm.plan.complexity": plan.event.complexity,
                            "gen_ai.request.model": plan.event.model,
                        }
                    ),
                    error=plan.event.error.reason,
                )
            )
        for step in self._steps.values():
            parent = span_id(turn_id, "plan", step.plan_id) if step.plan_id in self._plans else mine
            found += self._step(first, step, parent)
        return found

    def _take(self, envelope: Envelope, payload: Message, at: int) -> None:
        if isinstance(payload, ev.TurnEvent):
            self._first, self._request = envelope, payload
        elif isinstance(payload, ev.TurnStateEvent):
            self._state(payload, at)
        elif isinstance(payload, ev.TurnControlEvent):
            self._moments.append(Moment(at, _TURNVERB.get(payload.verb, "")))
        elif isinstance(payload, ev.PlanEvent):
            self._plans[payload.plan_id] = _Plan(payload, at, at)
        elif isinstance(payload, ev.StepEvent):
            step = self._steps.setdefault(payload.step_key, _Step(payload.step_key, payload.plan_id, at, at))
            step.attempts.append(_Attempt(envelope.attempt, payload, at))
        elif isinstance(payload, ev.StepResultEvent):
            self._result(envelope, payload, at)

    def _state(self, event: ev.TurnStateEvent, at: int) -> None:
        if event.change == ev.TURN_CHANGE_FINISHED:
            self._end = event
        elif event.change == ev.TURN_CHANGE_WAITING:
            reason = _WAITREASON.get(event.wait_reason, "")
            facts = _without_nothing({"kfm.wait_reason": reason, "kfm.step_key": event.step_key})
            self._moments.append(Moment(at, "waiting", facts))
        else:
            self._moments.append(Moment(at, _TURNCHANGE.get(event.change, "")))
            if event.personality_json:
                self._personality = Personality.decode(event.personality_json).name

    def _result(self, envelope: Envelope, event: ev.StepResultEvent, at: int) -> None:
        step = self._steps.setdefault(
            event.step_key, _Step(event.step_key, self._plan_of(event.step_key), at, at)
        )
        end = at
        for attempt in step.attempts:
            if attempt.number == envelope.attempt and attempt.result is None:
                # Quick steps are dispatched and end in one append, at one time: what they took is in the metrics.
                run_time = event.metrics.run_time.ToMicroseconds()
                end = max(at, attempt.start_us + run_time)
                attempt.end_us, attempt.result = end, event
        step.end_us = max(step.end_us, end)
        step.status = _STEPSTATUS.get(event.status, "")
        step.reason = event.error.reason
        plan = self._plans.get(step.plan_id)
        if plan is not None:
            plan.end_us = max(plan.end_us, end)
        self._last_us = max(self._last_us, end)

    def _plan_of(self, key: str) -> str:
        """The plan that a step belongs to which was never dispatched."""
        return next(
            (id for id, plan in self._plans.items() if any(s.key == key for s in plan.event.steps)), ""
        )

    def _turn(self, first: Envelope, mine: str) -> Span:
        parent = parse_traceparent(first.traceparent)
        end = self._end
        outcome = _OUTCOME.get(end.outcome, "")
        attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": self._personality or self._request.personality,
            "gen_ai.conversation.id": first.session_id,
            "gen_ai.usage.input_tokens": end.usage.input_tokens,
            "gen_ai.usage.output_tokens": end.usage.output_tokens,
            "kfm.cost_nanos": end.usage.cost_nanos,
            "kfm.turn_id": first.turn_id,
            "kfm.outcome": outcome,
        }
        if self._content:
            attributes["gen_ai.input.messages"] = _text(self._request.input)
            attributes["gen_ai.output.messages"] = _text(end.output)
        return Span(
            first.trace_id,
            mine,
            parent[1] if parent else "",
            "turn",
            first.timestamp.ToMicroseconds(),
            self._last_us,
            attributes=_without_nothing(attributes),
            moments=tuple(self._moments),
            error="" if end.outcome == ev.OUTCOME_SUCCEEDED else end.error.reason or outcome,
        )

    def _step(self, first: Envelope, step: _Step, parent: str) -> list[Span]:
        turn_id = first.turn_id
        mine = span_id(turn_id, "step", step.key)
        open_until = self._last_us if any(a.result is None for a in step.attempts) else step.end_us
        found = [
            Span(
                first.trace_id,
                mine,
                parent,
                f"step {step.key}",
                step.start_us,
                open_until,
                attributes=_without_nothing(
                    {
                        "kfm.step_key": step.key,
                        "kfm.step.status": step.status,
                        "kfm.step.attempts": len(step.attempts),
                    }
                ),
                error=step.reason,
            )
        ]
        for attempt in step.attempts:
            found.append(self._attempt(first, step, attempt, mine))
        return found

    def _attempt(self, first: Envelope, step: _Step, attempt: _Attempt, parent: str) -> Span:
        sent, result = attempt.sent, attempt.result or ev.StepResultEvent()
        attributes: dict[str, Attribute] = {"kfm.step_key": step.key, "kfm.attempt": attempt.number}
        kind = "internal"
        if sent.model or sent.step_type in (types.STEP_KIND_MODEL, types.STEP_KIND_PLAN):
            name, kind = f"chat {sent.model}".strip(), "client"
            attributes |= {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": sent.model,
                "gen_ai.response.model": result.metrics.model,
                "gen_ai.response.id": result.metrics.provider_request_id,
                "gen_ai.usage.input_tokens": result.metrics.usage.input_tokens,
                "gen_ai.usage.output_tokens": result.metrics.usage.output_tokens,
                "kfm.cost_nanos": result.metrics.usage.cost_nanos,
            }
            if self._content:
                attributes["gen_ai.output.messages"] = result.output_json[:_CONTENT_CHARACTERS]
        elif sent.step_type == types.STEP_KIND_HUMAN:
            name = "human"
        else:
            name = f"execute_tool {sent.tool}"
            attributes |= {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": sent.tool,
                "gen_ai.tool.call.id": sent.key,
                "kfm.effect": _EFFECTCONTRACT.get(sent.contract, ""),
                "kfm.rerun": sent.rerun,
                "kfm.compensation": sent.compensation,
            }
            if self._content:
                attributes["gen_ai.tool.call.arguments"] = sent.parameters_json[:_CONTENT_CHARACTERS]
                attributes["gen_ai.tool.call.result"] = result.output_json[:_CONTENT_CHARACTERS]
        return Span(
            first.trace_id,
            attempt_span_id(first.turn_id, step.key, attempt.number),
            parent,
            name,
            attempt.start_us,
            attempt.end_us or self._last_us,
            kind,
            _without_nothing(attributes),
            error=result.error.reason if attempt.result is not None else "REASON_FENCED",
        )


def _without_nothing(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    return {name: value for name, value in attributes.items() if value not in ("", 0, False)}


def _text(parts: Sequence[types.Part]) -> str:
    return "\n".join(part.text or part.data_json for part in parts)[:_CONTENT_CHARACTERS]
