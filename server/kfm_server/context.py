"""The execution context: who acts, for whom, under what bounds. One frozen value for all layers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExecutionContext:
    """Flows from the door through state, steps and events; nothing acts without one.

    tenant_id owns what is touched; principal acts; policy_reference names the policy that was
    asked; trace_id (32 hex digits) and traceparent tie logs and events to the caller's trace.
    """

    tenant_id: str = "default"
    principal: str = "anonymous"
    session_id: str = ""
    policy_reference: str = "default"
    trace_id: str = ""
    traceparent: str = ""
