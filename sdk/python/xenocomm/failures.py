"""Errors that the client itself finds, beside those that the server sends; and gRPC failures as typed errors."""

from collections.abc import Iterable
from typing import Any

import grpc

from xenocomm._gen import errors
from xenocomm._gen.errors import XenocommError
from xenocomm._gen.types import Outcome, Turn

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


class ResultTimeout(errors.DeadlineExceeded):
    """The turn had not ended when the caller's patience did; it goes on."""


class TurnUnsuccessful(XenocommError):
    """A turn did not end well. `turn` is the whole turn; `turn_reason` the name of the reason, e.g. `REASON_STEP_FAILED`."""

    row = errors.ERRORS["REASON_STEP_FAILED"]

    def __init__(self, turn: Turn, message: str = "") -> None:
        """The message defaults to the turn's own error."""
        self.turn = turn
        self.turn_reason = turn.error.reason if turn.error else ""
        self.turn_id = turn.turn_id
        text = message or (turn.error.message if turn.error else "") or f"turn {turn.turn_id} did not succeed"
        super().__init__(text, metadata=dict(turn.error.metadata) if turn.error else None)


class TurnFailed(TurnUnsuccessful):
    """A step failed for good, or no plan could be made."""


class TurnCancelled(TurnUnsuccessful):
    """Someone cancelled the turn."""

    row = errors.ERRORS["REASON_CANCELLED"]


class TurnTimedOut(TurnUnsuccessful):
    """The turn's own timeout passed."""

    row = errors.ERRORS["REASON_TURN_TIMEOUT"]


class TurnNeedsPerson(TurnUnsuccessful):
    """The turn waits for a person: an answer, a settlement or a resume. `turn.wait_reason` says which."""

    row = errors.ERRORS["REASON_STEP_OUTCOME_UNKNOWN"]


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
    if kind is errors.Unavailable and "connect" in text.lower():
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
