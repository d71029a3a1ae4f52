"""What a refused call tells its caller, as it stands on the wire."""

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2, status_pb2


@dataclass(frozen=True)
class Refused:
    """The status, the reason, the limit that was reached if one was, and when to come back."""

    code: grpc.StatusCode
    reason: str
    limit: str
    retry_ms: int


def refusal(error: BaseException | None) -> Refused:
    """What a failed call was told. AssertionError if it did not fail in the typed way."""
    assert isinstance(error, grpc.aio.AioRpcError), error
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert isinstance(raw, bytes), f"untyped: {error.code()}: {error.details()}"
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    for detail in status_pb2.Status.FromString(raw).details:
        _ = detail.Unpack(info) or detail.Unpack(retry)
    return Refused(error.code(), info.reason, info.metadata["limit"], retry.retry_delay.ToMilliseconds())
