"""Errors that the client itself finds, beside those that the server sends; and gRPC failures as typed errors."""

from collections.abc import Iterable, Mapping
from typing import Any

import grpc

from xenocomm._gen import errors
from xenocomm._gen.errors import XenocommError
from xenocomm._gen.types import Outcome, StepState, Turn, WaitReason

_DETAILS = "grpc-status-details-bin"

# A bare status comes from the transport or a proxy, which know no reasons.
_BARE: dict[grpc.StatusCode, type[XenocommError]] = {
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.PayloadTooLarge,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidArgument,
}

# Trying again under the same key can help without anyone doing something about it first.
TRANSIENT: tuple[type[XenocommError], ...] = (
    errors.Unavailable,
    errors.Draining,
    errors.NotOwner,
    errors.Fenced,
    errors.Overloaded,
    errors.TooManyStreams,
)


class ConnectFailed(errors.Unavailable):
    """No server answered at the endpoint."""


class Unreachable(ConnectFailed):
    """No connection came about and none was refused; trying on would only wait on."""


class ResultTimeout(errors.DeadlineExceeded):
    """The turn had not ended when the caller's patience did; it goes on."""


class TurnUnsuccessful(XenocommError):
    """A turn did not end well. `turn` is the whole turn; `reason` and `message` are the turn's own.

    The exit code and the statuses are those of the kind of failure: a failed turn is 6 whatever its reason.
    """

    row = errors.ERRORS["REASON_STEP_FAILED"]

    def __init__(self, turn: Turn, message: str = "", metadata: Mapping[str, str] | None = None) -> None:
        """The message defaults to the turn's own error; `turn_id` is in the metadata."""
        self.turn = turn
        self.turn_reason = turn.error.reason if turn.error else ""
        self.turn_id = turn.turn_id
        text = message or (turn.error.message if turn.error else "") or f"turn {turn.turn_id} did not succeed"
        own = dict(turn.error.metadata) if turn.error else {}
        after = own.get("retry_after_ms", "")
        super().__init__(
            text,
            metadata={**own, "turn_id": turn.turn_id, **(metadata or {})},
            retry_after_ms=int(after) if after.isdecimal() else None,
        )

    @property
    def reason(self) -> str:
        """The reason of the turn's own error, e.g. `REASON_PLAN_NOT_POSSIBLE`."""
        return self.turn_reason or self.row.reason


class TurnFailed(TurnUnsuccessful):
    """A step failed for good, or no plan could be made."""


class TurnCancelled(TurnUnsuccessful):
    """Someone cancelled the turn."""

    row = errors.ERRORS["REASON_CANCELLED"]


class TurnTimedOut(TurnUnsuccessful):
    """The turn's own timeout passed."""

    row = errors.ERRORS["REASON_TURN_TIMEOUT"]


class TurnNeedsPerson(TurnUnsuccessful):
    """The turn waits for a person. `verb` ends the wait: `answer`, `settle` (both of the step `step_key`) or `resume`.

    `reason` is the turn's wait reason, e.g. `WAIT_REASON_HUMAN`.
    """

    row = errors.ERRORS["REASON_STEP_OUTCOME_UNKNOWN"]

    def __init__(self, turn: Turn) -> None:
        """For a turn whose wait reason is one of WAITS_FOR_PERSON."""
        wait = WaitReason(turn.wait_reason)
        self.verb, state = WAITS_FOR_PERSON[wait]
        keys = [step.definition.key for step in turn.steps if step.definition and step.state == state]
        self.step_key = keys[0] if keys else ""
        what = f"step {self.step_key!r}" if self.step_key else "the turn"
        told = {"wait_reason": wait.name, "verb": self.verb, "step_key": self.step_key}
        text = f"turn {turn.turn_id} waits for a person ({wait.name}): {self.verb} {what}"
        super().__init__(turn, text, {name: value for name, value in told.items() if value})

    @property
    def reason(self) -> str:
        """Why it waits, e.g. `WAIT_REASON_PAUSED`."""
        return f"WAIT_REASON_{self.metadata['wait_reason']}"


WAITS_FOR_PERSON: dict[int, tuple[str, StepState | None]] = {
    WaitReason.HUMAN: ("answer", StepState.WAITING),
    WaitReason.NEEDS_REVIEW: ("settle", StepState.NEEDS_REVIEW),
    WaitReason.PAUSED: ("resume", None),
}
"""Wait reasons that only a person ends: the verb, and the state of the step that it is for."""

_BY_OUTCOME: dict[int, type[TurnUnsuccessful]] = {
    Outcome.CANCELLED: TurnCancelled,
    Outcome.TIMED_OUT: TurnTimedOut,
}


def check_outcome(turn: Turn) -> Turn:
    """The turn, if it succeeded; its typed failure otherwise."""
    if turn.outcome == Outcome.SUCCEEDED:
        return turn
    raise _BY_OUTCOME.get(turn.outcome, TurnFailed)(turn)


def from_rpc(error: grpc.aio.AioRpcError, endpoint: str) -> XenocommError:
    """The typed error for a failed call: by its ErrorInfo, else by its bare status."""
    raw = next((value for key, value in _trailer(error) if key == _DETAILS), None)
    if isinstance(raw, bytes):
        typed = _from_details(raw, error.details() or "")
        if typed is not None:
            return typed
    kind = _BARE.get(error.code(), errors.Internal)
    text = f"{error.details() or error.code().name} (at {endpoint})"
    if kind is errors.Unavailable and any(word in text.lower() for word in ("connect", "resolving")):
        return ConnectFailed(f"No server answers at {endpoint}: {error.details()}")
    return kind(text, metadata={"grpc_status": error.code().name})


def _trailer(error: grpc.aio.AioRpcError) -> Iterable[tuple[str, str | bytes]]:
    return tuple(error.trailing_metadata() or ())


def _from_details(raw: bytes, text: str) -> XenocommError | None:
    from google.rpc import error_details_pb2, status_pb2

    info: Any = None
    violations: list[tuple[str, str, str]] = []
    retry_ms: int | None = None
    for detail in status_pb2.Status.FromString(raw).details:
        name = detail.type_url.rpartition("/")[2]
        if name == "google.rpc.ErrorInfo":
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
        elif name == "google.rpc.BadRequest":
            bad = error_details_pb2.BadRequest.FromString(detail.value)
            violations = [(v.field, v.reason, v.description) for v in bad.field_violations]
        elif name == "google.rpc.RetryInfo":
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_ms = delay.seconds * 1000 + delay.nanos // 1_000_000
    if info is None or info.domain != "kfm":
        return None
    kind = errors.ERROR_CLASSES.get(info.reason, errors.Internal)
    metadata = dict(info.metadata)
    if info.reason not in errors.ERROR_CLASSES:
        metadata["reason"] = info.reason
    return kind(text, metadata=metadata, violations=violations, retry_after_ms=retry_ms)
