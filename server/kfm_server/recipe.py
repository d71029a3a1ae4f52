"""What a model step's prompt is rendered from: recorded facts only, so that a replay renders the same."""

from dataclasses import dataclass
from typing import Literal

from kfm.type.v1 import type_pb2 as types

from kfm_server.models import Personality

Purpose = Literal["answer", "plan", "summarise"]
"""What the model is asked for: the next reply with tools at hand, a plan, or an answer from what a plan's steps came to."""


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """A call that was asked for and what it came to: an output, or why there is none."""

    key: str
    tool: str
    arguments_json: str
    output_json: str
    error: str


@dataclass(frozen=True, slots=True)
class Round:
    """A reply of the model earlier in the turn, the outcomes of its calls, and what was wrong with it, if anything.

    `reply_json` is empty for outcomes that no reply asked for: those of a plan.
    """

    reply_json: str
    calls: tuple[CallOutcome, ...] = ()
    feedback: str = ""


@dataclass(frozen=True, slots=True)
class FailedCall:
    """An earlier attempt of the same step: the configured name of the model that it asked, and how that failed."""

    model: str
    reason: str
    http_status: str = ""
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that a prompt is made of, beside the session's earlier turns and the tool catalogue.

    model: its configured name; submitted_us: when the turn was submitted, in microseconds since the epoch;
    max_tokens, max_cost_nanos: what the call may use at most, 0 is no bound; failed: the step's attempts so far.
    """

    purpose: Purpose
    model: str
    personality: Personality
    input: tuple[types.Part, ...]
    submitted_us: int
    output_schema_json: str = ""
    rounds: tuple[Round, ...] = ()
    max_tokens: int = 0
    max_cost_nanos: int = 0
    failed: tuple[FailedCall, ...] = ()
