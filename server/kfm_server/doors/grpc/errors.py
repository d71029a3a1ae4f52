"""Failures as gRPC carries them: a status, and google.rpc details in its trailer."""

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from kfm.catalogue.errors import KfmError

DOMAIN = "kfm"
REQUEST_ID = "kfm-request-id"
_DETAILS = "grpc-status-details-bin"
_PREFIX = "type.googleapis.com/google.rpc."
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MOST_VIOLATIONS = 32
_MOST_TEXT = 512

Trailer = tuple[tuple[str, str | bytes], ...]


def to_status(error: KfmError, request_id: str) -> tuple[grpc.StatusCode, str, Trailer]:
    """The code, the sentence and the trailer for a failure: ErrorInfo always, BadRequest and RetryInfo when it has them.

    Lengths are bounded: a trailer over the peer's metadata limit would replace the typed error by a bare one.
    """
    message = clip(error.message)
    status = status_pb2.Status(code=error.grpc_code, message=message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)
    for name, value in list(error.metadata.items())[:16]:
        info.metadata[clip(name, 64)] = clip(value)
    info.metadata["request_id"] = request_id
    _add(status, "ErrorInfo", info)
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:_MOST_VIOLATIONS]:
            bad.field_violations.add(
                field=clip(violation.field, 256),
                description=clip(violation.message, 256),
                reason=violation.rule,
            )
        _add(status, "BadRequest", bad)
    if error.retry_after_ms is not None:
        seconds, rest = divmod(error.retry_after_ms, 1000)
        delay = duration_pb2.Duration(seconds=seconds, nanos=rest * 1_000_000)
        _add(status, "RetryInfo", error_details_pb2.RetryInfo(retry_delay=delay))
    trailer: Trailer = ((_DETAILS, status.SerializeToString()), (REQUEST_ID, request_id))
    return _CODES[error.grpc_code], message, trailer


def clip(text: str, most: int = _MOST_TEXT) -> str:
    """The text, cut with an ellipsis when it is longer than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def _add(
    status: status_pb2.Status,
    name: str,
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> None:
    value = any_pb2.Any(type_url=_PREFIX + name, value=detail.SerializeToString(deterministic=True))
    status.details.append(value)
