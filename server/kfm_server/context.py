"""The execution context: who acts, for whom, under what bounds. One frozen value for all layers."""

from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass

AT_OWNER = "kfm-at-owner"
"""Metadata of a call that another process makes: it is answered here or sent back, never passed on."""


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


_log_facts: ContextVar[Mapping[str, str]] = ContextVar("kfm_log_facts")
_NO_FACTS: Mapping[str, str] = {}


def log_facts() -> Mapping[str, str]:
    """What the work at hand is about: stands in every line that is logged meanwhile."""
    return _log_facts.get(_NO_FACTS)


def work_on(**facts: str) -> Token[Mapping[str, str]]:
    """State what the work at hand is about, in place of what was stated; `work_done` takes it back."""
    return _log_facts.set(facts)


def work_done(token: Token[Mapping[str, str]]) -> None:
    """Go back to what was stated before."""
    _log_facts.reset(token)
