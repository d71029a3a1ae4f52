"""One lease, from its arrival to the acknowledgement of its result; and its attempt, as steps know it."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

from kfm.event.v1 import turn_events_pb2 as events
from kfm.type.v1 import type_pb2 as types
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server.clock import Clock
from kfm_server.context import ExecutionContext
from kfm_server.ports.attempt_refs import Key, key_of
from kfm_server.ports.steps import Attempt, AttemptResult, Failure
from kfm_server.steps.middleware import Handler, Invocation, Middleware, failed
from kfm_server.trace_ids import parse_traceparent


@dataclass(eq=False, slots=True)
class Held:
    """A lease that the worker holds. Times are of its own clocks, `arrived` of the steady one in seconds."""

    lease: pb.Lease
    arrived: float
    arrived_us: int
    ahead_us: int = 0
    """How far the server's clock is ahead of ours."""
    task: asyncio.Task[None] | None = None
    running: bool = False
    """Its task has begun, and no result is there yet."""
    stopped: str = ""
    """Why it was asked to stop."""
    result: pb.LeaseResult | None = None
    recorded: Callable[[bool], None] | None = None
    """Who performed it waits for its acknowledgement, too."""
    told: float = 0.0
    """When the result was told last, by the steady clock."""

    @property
    def key(self) -> Key:
        """Its attempt."""
        return key_of(self.lease.ref)

    def attempt(self) -> Attempt:
        """What the lease asks for; its times are counted from arrival, by the wall clock, unless the server's comes first."""
        lease, ref = self.lease, self.lease.ref
        start_by_us = self.arrived_us + lease.start_within.ToMicroseconds()
        if lease.HasField("start_by"):
            start_by_us = min(start_by_us, lease.start_by.ToMicroseconds() - self.ahead_us)
        return Attempt(
            context=context_of(lease.tenant_id, lease.principal, ref.session_id, lease.traceparent),
            turn_id=ref.turn_id,
            step_key=ref.step_key,
            attempt=ref.attempt,
            kind=types.STEP_KIND_TOOL,
            tool=lease.tool,
            arguments_json=lease.arguments_json,
            effect=lease.effect,
            key=lease.key,
            epoch=ref.epoch,
            start_by_us=start_by_us,
            deadline_us=start_by_us + lease.timeout.ToMicroseconds(),
            compensation=lease.compensation,
        )

    def why_late(self, clock: Clock) -> str:
        """Why the attempt must not start any more, as a sentence; empty if it may.

        The steady clock runs while the process is frozen, and the wall clock while the machine is.
        """
        lease = self.lease
        within = lease.start_within.ToMicroseconds()
        waited = int((clock.monotonic() - self.arrived) * 1_000_000)
        now = clock.now_us()
        for since in (waited, now - self.arrived_us):
            if since > within:
                return f"it came {since // 1000} ms ago and had to start within {within // 1000} ms of its arrival"
        there = now + self.ahead_us
        if lease.HasField("start_by") and there > (start_by := lease.start_by.ToMicroseconds()):
            return f"it had to start {(there - start_by) // 1000} ms ago, by the server's clock"
        return ""


at_hand: ContextVar[Held] = ContextVar("kfm_lease_at_hand")
"""The lease that the current task performs."""


def with_latest_start(clock: Clock) -> Middleware:
    """The innermost layer: right before the call, refuses a start that comes too late by any clock."""

    def layer(following: Handler) -> Handler:
        async def handle(invocation: Invocation) -> AttemptResult:
            late = at_hand.get().why_late(clock)
            if late:
                return failed("REASON_FENCED", f"The step was not started: {late}.", retryable=True)
            return await following(invocation)

        return handle

    return layer


def context_of(tenant_id: str, principal: str, session_id: str, traceparent: str) -> ExecutionContext:
    """On whose behalf an attempt is made, and in which trace."""
    trace = parse_traceparent(traceparent)
    return ExecutionContext(
        tenant_id=tenant_id,
        principal=principal,
        session_id=session_id,
        trace_id=trace[0] if trace else "",
        traceparent=traceparent,
    )


def result_of(ref: pb.AttemptRef, result: AttemptResult) -> pb.LeaseResult:
    """What an attempt came to, as the server is told."""
    told = pb.LeaseResult(ref=ref, status=result.status, output_json=result.output_json)
    told.run_time.FromMicroseconds(result.run_time_us)
    if result.failure is not None:
        tell_failure(told.error, result.failure)
    return told


def tell_failure(error: types.Error, failure: Failure) -> None:
    """Why an attempt failed, in a result."""
    error.reason, error.message, error.retryable = failure.reason, failure.message, failure.retryable
    error.metadata.update(failure.metadata)


def that_fits(result: pb.LeaseResult, max_bytes: int) -> pb.LeaseResult:
    """The result, or that it is larger than what the server takes in one message; 0 is no bound."""
    if not max_bytes or result.ByteSize() + _FRAME_BYTES <= max_bytes:
        return result
    what = f"The result has {result.ByteSize()} bytes; the server's max_message_bytes={max_bytes}."
    large = result_of(result.ref, failed("REASON_PAYLOAD_TOO_LARGE", what, status=_not_told(result)))
    large.run_time.CopyFrom(result.run_time)
    return large


_FRAME_BYTES = 64
"""What a WorkRequest adds to its message, at most."""


def _not_told(result: pb.LeaseResult) -> events.StepStatus:
    return events.STEP_STATUS_FAILED if result.status == events.STEP_STATUS_SUCCEEDED else result.status
