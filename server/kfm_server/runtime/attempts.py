"""An attempt of a step, from its recorded dispatch to the event of its result."""

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import clean_text
from kfm_server.context import ExecutionContext
from kfm_server.models import Personality
from kfm_server.ports.journal import Rejected
from kfm_server.ports.steps import Attempt, AttemptResult, DeltaKind
from kfm_server.turns.bodies import arguments_of
from kfm_server.turns.decide.draft import Adopt, Start
from kfm_server.turns.recipes import recipe_of
from kfm_server.turns.state import Turn
from kfm_server.turns.times import duration, micros


def attempt_of(turn: Turn, start: Start | Adopt, epoch: int) -> Attempt:
    """What its dispatch tells the attempt to do."""
    step = turn.steps[start.step_key]
    sent = step.dispatch
    assert sent is not None
    return Attempt(
        context=ExecutionContext(
            tenant_id=turn.tenant_id,
            principal=turn.request.principal,
            session_id=turn.session_id,
            policy_reference=turn.request.policy_reference,
            trace_id=turn.trace_id,
            traceparent=turn.traceparent,
        ),
        turn_id=turn.turn_id,
        step_key=start.step_key,
        attempt=start.attempt,
        kind=sent.step_type,
        tool=sent.tool,
        arguments_json=arguments_of(turn, step),
        effect=sent.contract,
        key=sent.key,
        epoch=epoch,
        start_by_us=micros(sent.start_by),
        deadline_us=micros(sent.deadline),
        compensation=sent.compensation,
        pool="" if sent.pool == "local" else sent.pool,
        recipe=recipe_of(turn, step),
        personality=Personality.decode(turn.personality_json) if turn.personality_json else None,
    )


def result_event(key: str, result: AttemptResult) -> ev.StepResultEvent:
    """What an attempt came to, as an event."""
    event = ev.StepResultEvent(
        step_key=key,
        status=result.status,
        output_json=result.output_json,
        worker=result.worker,
        metrics=ev.StepMetrics(run_time=duration(result.run_time_us)),
    )
    call = result.call
    if call is not None:
        event.metrics.model = call.model
        event.metrics.provider_request_id = call.provider_request_id
        event.metrics.prompt_digest = call.prompt_digest
        if call.usage is not None:
            event.metrics.usage.CopyFrom(call.usage)
    if result.failure is not None:
        failure = result.failure
        event.error.reason = failure.reason
        event.error.message = failure.message
        event.error.retryable = failure.retryable
        event.error.metadata.update(failure.metadata)
    return event


UNSURE = "the lease was not sure enough to start an effect"
NO_PLACE = "too many transactional steps ran at that time"


def not_started(key: str, text: str = UNSURE) -> ev.StepResultEvent:
    """The result of an attempt that was not started, and why."""
    why = types.Error(reason="REASON_FENCED", message=text, retryable=True)
    return ev.StepResultEvent(step_key=key, status=ev.STEP_STATUS_FAILED, error=why, synthesised=True)


def not_committed(key: str, refused: Rejected) -> ev.StepResultEvent:
    """The result of a TRANSACTIONAL attempt that left a transaction which cannot be committed: nothing was written."""
    text = clean_text(f"its transaction cannot be committed: {refused}")[:4096]
    why = types.Error(reason="REASON_TOOL_FAILED", message=text)
    return ev.StepResultEvent(step_key=key, status=ev.STEP_STATUS_FAILED, error=why)


def no_progress(text: str, kind: DeltaKind = "progress") -> None:
    """PURE steps that run before their append tell nobody: nothing is durable yet."""
