"""The error table and the exception tree. Generated from kfm.error.v1.Reason; never edited."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one reason looks at every door: statuses are numbers, `retryable` means the same request may succeed later."""

    reason: str
    number: int
    grpc_code: int
    http_status: int
    exit_code: int
    retryable: bool
    summary: str


class Violation(NamedTuple):
    """One broken rule: the field's path (`turn.input[1].text`), the rule's id and a sentence."""

    field: str
    rule: str
    message: str


ERRORS: dict[str, ErrorRow] = {
    "REASON_TURN_NOT_FOUND": ErrorRow("REASON_TURN_NOT_FOUND", 1, 5, 404, 3, False, 'No turn with this id exists.'),
    "REASON_STEP_NOT_FOUND": ErrorRow("REASON_STEP_NOT_FOUND", 2, 5, 404, 3, False, 'The turn has no step with this key.'),
    "REASON_DEAD_LETTER_NOT_FOUND": ErrorRow("REASON_DEAD_LETTER_NOT_FOUND", 3, 5, 404, 3, False, 'No dead letter with this id exists.'),
    "REASON_PERSONALITY_NOT_FOUND": ErrorRow("REASON_PERSONALITY_NOT_FOUND", 4, 5, 404, 3, False, 'No personality with this name is installed.'),
    "REASON_INVALID_ARGUMENT": ErrorRow("REASON_INVALID_ARGUMENT", 5, 3, 422, 2, False, 'The request breaks a rule of its schema.'),
    "REASON_MALFORMED_REQUEST": ErrorRow("REASON_MALFORMED_REQUEST", 6, 3, 400, 2, False, 'The request could not be decoded.'),
    "REASON_PAGE_TOKEN_INVALID": ErrorRow("REASON_PAGE_TOKEN_INVALID", 7, 3, 422, 2, False, 'The page token was not made by this list with these filters.'),
    "REASON_SESSION_BUSY": ErrorRow("REASON_SESSION_BUSY", 8, 9, 409, 5, True, 'The session runs another turn and the request asked to be rejected.'),
    "REASON_TURN_FINISHED": ErrorRow("REASON_TURN_FINISHED", 9, 9, 409, 5, False, 'The turn has ended; it takes no more controls.'),
    "REASON_TURN_NOT_FINISHED": ErrorRow("REASON_TURN_NOT_FINISHED", 10, 9, 409, 5, False, 'The turn has not ended yet.'),
    "REASON_STATE_CONFLICT": ErrorRow("REASON_STATE_CONFLICT", 11, 9, 409, 5, False, 'The turn or step is not in a state that allows this.'),
    "REASON_IDEMPOTENCY_CONFLICT": ErrorRow("REASON_IDEMPOTENCY_CONFLICT", 12, 6, 409, 5, False, 'The idempotency key was used with another request.'),
    "REASON_PLAN_INVALID": ErrorRow("REASON_PLAN_INVALID", 13, 9, 422, 6, False, 'The plan breaks a rule; the message says which.'),
    "REASON_PLAN_NOT_POSSIBLE": ErrorRow("REASON_PLAN_NOT_POSSIBLE", 14, 9, 422, 6, False, 'No planner could turn the message into steps.'),
    "REASON_STEP_LIMIT_EXCEEDED": ErrorRow("REASON_STEP_LIMIT_EXCEEDED", 15, 8, 429, 6, False, 'The plan has more steps than its limit allows.'),
    "REASON_STEP_TIMEOUT": ErrorRow("REASON_STEP_TIMEOUT", 16, 4, 504, 6, True, 'The attempt took longer than its timeout.'),
    "REASON_STEP_FAILED": ErrorRow("REASON_STEP_FAILED", 17, 10, 500, 6, False, 'The step failed and no attempt is left.'),
    "REASON_STEP_OUTCOME_UNKNOWN": ErrorRow("REASON_STEP_OUTCOME_UNKNOWN", 18, 10, 500, 7, False, 'The process died while the step ran; whether its effect happened is not known.'),
    "REASON_STEP_CRASHES_PROCESS": ErrorRow("REASON_STEP_CRASHES_PROCESS", 19, 10, 500, 7, False, 'The step was running each time its process died; it waits for a person.'),
    "REASON_TOOL_NOT_FOUND": ErrorRow("REASON_TOOL_NOT_FOUND", 20, 5, 404, 6, False, 'No tool with this name is in the catalogue.'),
    "REASON_TOOL_ARGUMENTS_INVALID": ErrorRow("REASON_TOOL_ARGUMENTS_INVALID", 21, 3, 422, 6, False, "The arguments break the tool's schema."),
    "REASON_TOOL_FAILED": ErrorRow("REASON_TOOL_FAILED", 22, 10, 500, 6, False, 'The tool reported a failure.'),
    "REASON_TOOL_UNAVAILABLE": ErrorRow("REASON_TOOL_UNAVAILABLE", 23, 14, 503, 6, True, 'The tool could not be reached; another attempt may succeed.'),
    "REASON_PROVIDER_UNAVAILABLE": ErrorRow("REASON_PROVIDER_UNAVAILABLE", 24, 14, 503, 6, True, 'The model provider could not be reached.'),
    "REASON_BUDGET_EXCEEDED": ErrorRow("REASON_BUDGET_EXCEEDED", 25, 8, 429, 6, False, 'The turn would exceed its budget.'),
    "REASON_TURN_TIMEOUT": ErrorRow("REASON_TURN_TIMEOUT", 26, 4, 504, 8, False, 'The turn did not end within its timeout.'),
    "REASON_CANCELLED": ErrorRow("REASON_CANCELLED", 27, 1, 499, 6, False, 'The work was cancelled.'),
    "REASON_FENCED": ErrorRow("REASON_FENCED", 28, 10, 503, 9, True, 'Another process owns the session now; retry with the same key.'),
    "REASON_NOT_OWNER": ErrorRow("REASON_NOT_OWNER", 29, 14, 503, 9, True, "The session's owner is another process that did not answer in time."),
    "REASON_PAYLOAD_TOO_LARGE": ErrorRow("REASON_PAYLOAD_TOO_LARGE", 30, 8, 413, 2, False, 'The message is larger than the limit allows.'),
    "REASON_OVERLOADED": ErrorRow("REASON_OVERLOADED", 31, 8, 429, 9, True, 'The server has reached a limit; retry after the stated time.'),
    "REASON_TOO_MANY_STREAMS": ErrorRow("REASON_TOO_MANY_STREAMS", 32, 8, 429, 9, True, 'The server holds as many streams as its limit allows.'),
    "REASON_UNAVAILABLE": ErrorRow("REASON_UNAVAILABLE", 33, 14, 503, 9, True, 'The server cannot serve now; retry with the same key.'),
    "REASON_DRAINING": ErrorRow("REASON_DRAINING", 34, 14, 503, 9, True, 'The server is stopping; retry with the same key.'),
    "REASON_DEADLINE_EXCEEDED": ErrorRow("REASON_DEADLINE_EXCEEDED", 35, 4, 504, 8, True, "The call's deadline passed; the turn goes on."),
    "REASON_UNAUTHENTICATED": ErrorRow("REASON_UNAUTHENTICATED", 36, 16, 401, 4, False, 'A valid token is required.'),
    "REASON_PERMISSION_DENIED": ErrorRow("REASON_PERMISSION_DENIED", 37, 7, 403, 4, False, 'The principal lacks the scope that this call needs.'),
    "REASON_UNIMPLEMENTED": ErrorRow("REASON_UNIMPLEMENTED", 38, 12, 501, 2, False, 'The server does not offer this.'),
    "REASON_EVENT_TYPE_UNKNOWN": ErrorRow("REASON_EVENT_TYPE_UNKNOWN", 39, 9, 422, 6, False, "The event's type is not in the catalogue and may not be ignored."),
    "REASON_EVENT_UNDECODABLE": ErrorRow("REASON_EVENT_UNDECODABLE", 40, 3, 422, 6, False, "The event's bytes could not be decoded."),
    "REASON_HISTORY_UNREADABLE": ErrorRow("REASON_HISTORY_UNREADABLE", 41, 15, 500, 6, False, "The session's history could not be folded; it is held for an operator."),
    "REASON_INTERNAL": ErrorRow("REASON_INTERNAL", 42, 13, 500, 1, False, 'The server failed; its log has the whole story under the request id.'),
    "REASON_SESSION_NOT_FOUND": ErrorRow("REASON_SESSION_NOT_FOUND", 43, 5, 404, 3, False, 'There is no such session.'),
    "REASON_MODEL_NOT_FOUND": ErrorRow("REASON_MODEL_NOT_FOUND", 44, 5, 404, 3, False, 'The model is not configured.'),
    "REASON_PROVIDER_RATE_LIMITED": ErrorRow("REASON_PROVIDER_RATE_LIMITED", 45, 8, 429, 6, True, 'The model provider asks for fewer calls.'),
    "REASON_PROVIDER_REJECTED": ErrorRow("REASON_PROVIDER_REJECTED", 46, 9, 502, 6, False, 'The model provider refused the call.'),
    "REASON_CONTEXT_OVERFLOW": ErrorRow("REASON_CONTEXT_OVERFLOW", 47, 9, 422, 6, False, 'The conversation does not fit into the model.'),
    "REASON_MODEL_REPLY_INVALID": ErrorRow("REASON_MODEL_REPLY_INVALID", 48, 9, 502, 6, True, "The model's reply could not be read."),
    "REASON_CONTENT_REFUSED": ErrorRow("REASON_CONTENT_REFUSED", 49, 9, 422, 6, False, 'The model declined to answer.'),
    "REASON_OUTPUT_INVALID": ErrorRow("REASON_OUTPUT_INVALID", 50, 9, 502, 6, False, 'The answer does not fit the schema that was asked for.'),
    "REASON_CONFIG_INVALID": ErrorRow("REASON_CONFIG_INVALID", 51, 9, 422, 2, False, 'The configuration cannot be used; the one before stays.'),
    "REASON_POOL_UNAVAILABLE": ErrorRow("REASON_POOL_UNAVAILABLE", 52, 14, 503, 6, True, "No worker of the step's pool took it in time."),
    "REASON_TOOL_INVALID": ErrorRow("REASON_TOOL_INVALID", 53, 9, 422, 2, False, "A worker's tool cannot be offered: its name is taken, or its schema or contract is none."),
    "REASON_MEMORY_NOT_FOUND": ErrorRow("REASON_MEMORY_NOT_FOUND", 54, 5, 404, 3, False, 'There is no such collection or document.'),
}


class KfmError(Exception):
    """A failure with a stable reason. The message defaults to the reason's summary; `retry_after_ms` says when to come back."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_INTERNAL"]

    def __init__(
        self,
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[tuple[str, str, str]] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        """All arguments are optional; metadata values are text."""
        self.message = message or self.row.summary
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[Violation, ...] = tuple(Violation(*v) for v in violations)
        self.retry_after_ms = retry_after_ms
        super().__init__(self.message)

    @property
    def reason(self) -> str:
        """The reason's name, e.g. `REASON_TURN_NOT_FOUND`."""
        return self.row.reason

    @property
    def grpc_code(self) -> int:
        """The gRPC status code by number."""
        return self.row.grpc_code

    @property
    def http_status(self) -> int:
        """The HTTP status."""
        return self.row.http_status

    @property
    def exit_code(self) -> int:
        """The exit code of the command line."""
        return self.row.exit_code

    @property
    def retryable(self) -> bool:
        """The same request may succeed later."""
        return self.row.retryable


class TurnNotFound(KfmError):
    """No turn with this id exists."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TURN_NOT_FOUND"]



class StepNotFound(KfmError):
    """The turn has no step with this key."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_STEP_NOT_FOUND"]



class DeadLetterNotFound(KfmError):
    """No dead letter with this id exists."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_DEAD_LETTER_NOT_FOUND"]



class PersonalityNotFound(KfmError):
    """No personality with this name is installed."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PERSONALITY_NOT_FOUND"]



class InvalidArgument(KfmError):
    """The request breaks a rule of its schema."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_INVALID_ARGUMENT"]



class MalformedRequest(KfmError):
    """The request could not be decoded."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_MALFORMED_REQUEST"]



class PageTokenInvalid(KfmError):
    """The page token was not made by this list with these filters."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PAGE_TOKEN_INVALID"]



class SessionBusy(KfmError):
    """The session runs another turn and the request asked to be rejected."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_SESSION_BUSY"]



class TurnFinished(KfmError):
    """The turn has ended; it takes no more controls."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TURN_FINISHED"]



class TurnNotFinished(KfmError):
    """The turn has not ended yet."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TURN_NOT_FINISHED"]



class StateConflict(KfmError):
    """The turn or step is not in a state that allows this."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_STATE_CONFLICT"]



class IdempotencyConflict(KfmError):
    """The idempotency key was used with another request."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_IDEMPOTENCY_CONFLICT"]



class PlanInvalid(KfmError):
    """The plan breaks a rule; the message says which."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PLAN_INVALID"]



class PlanNotPossible(KfmError):
    """No planner could turn the message into steps."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PLAN_NOT_POSSIBLE"]



class StepLimitExceeded(KfmError):
    """The plan has more steps than its limit allows."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_STEP_LIMIT_EXCEEDED"]



class StepTimeout(KfmError):
    """The attempt took longer than its timeout."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_STEP_TIMEOUT"]



class StepFailed(KfmError):
    """The step failed and no attempt is left."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_STEP_FAILED"]



class StepOutcomeUnknown(KfmError):
    """The process died while the step ran; whether its effect happened is not known."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_STEP_OUTCOME_UNKNOWN"]



class StepCrashesProcess(KfmError):
    """The step was running each time its process died; it waits for a person."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_STEP_CRASHES_PROCESS"]



class ToolNotFound(KfmError):
    """No tool with this name is in the catalogue."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TOOL_NOT_FOUND"]



class ToolArgumentsInvalid(KfmError):
    """The arguments break the tool's schema."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TOOL_ARGUMENTS_INVALID"]



class ToolFailed(KfmError):
    """The tool reported a failure."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TOOL_FAILED"]



class ToolUnavailable(KfmError):
    """The tool could not be reached; another attempt may succeed."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TOOL_UNAVAILABLE"]



class ProviderUnavailable(KfmError):
    """The model provider could not be reached."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PROVIDER_UNAVAILABLE"]



class BudgetExceeded(KfmError):
    """The turn would exceed its budget."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_BUDGET_EXCEEDED"]



class TurnTimeout(KfmError):
    """The turn did not end within its timeout."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TURN_TIMEOUT"]



class Cancelled(KfmError):
    """The work was cancelled."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_CANCELLED"]



class Fenced(KfmError):
    """Another process owns the session now; retry with the same key."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_FENCED"]



class NotOwner(KfmError):
    """The session's owner is another process that did not answer in time."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_NOT_OWNER"]



class PayloadTooLarge(KfmError):
    """The message is larger than the limit allows."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PAYLOAD_TOO_LARGE"]



class Overloaded(KfmError):
    """The server has reached a limit; retry after the stated time."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_OVERLOADED"]



class TooManyStreams(KfmError):
    """The server holds as many streams as its limit allows."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TOO_MANY_STREAMS"]



class Unavailable(KfmError):
    """The server cannot serve now; retry with the same key."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_UNAVAILABLE"]



class Draining(KfmError):
    """The server is stopping; retry with the same key."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_DRAINING"]



class DeadlineExceeded(KfmError):
    """The call's deadline passed; the turn goes on."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_DEADLINE_EXCEEDED"]



class Unauthenticated(KfmError):
    """A valid token is required."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_UNAUTHENTICATED"]



class PermissionDenied(KfmError):
    """The principal lacks the scope that this call needs."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PERMISSION_DENIED"]



class Unimplemented(KfmError):
    """The server does not offer this."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_UNIMPLEMENTED"]



class EventTypeUnknown(KfmError):
    """The event's type is not in the catalogue and may not be ignored."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_EVENT_TYPE_UNKNOWN"]



class EventUndecodable(KfmError):
    """The event's bytes could not be decoded."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_EVENT_UNDECODABLE"]



class HistoryUnreadable(KfmError):
    """The session's history could not be folded; it is held for an operator."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_HISTORY_UNREADABLE"]



class Internal(KfmError):
    """The server failed; its log has the whole story under the request id."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_INTERNAL"]



class SessionNotFound(KfmError):
    """There is no such session."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_SESSION_NOT_FOUND"]



class ModelNotFound(KfmError):
    """The model is not configured."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_MODEL_NOT_FOUND"]



class ProviderRateLimited(KfmError):
    """The model provider asks for fewer calls."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PROVIDER_RATE_LIMITED"]



class ProviderRejected(KfmError):
    """The model provider refused the call."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_PROVIDER_REJECTED"]



class ContextOverflow(KfmError):
    """The conversation does not fit into the model."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_CONTEXT_OVERFLOW"]



class ModelReplyInvalid(KfmError):
    """The model's reply could not be read."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_MODEL_REPLY_INVALID"]



class ContentRefused(KfmError):
    """The model declined to answer."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_CONTENT_REFUSED"]



class OutputInvalid(KfmError):
    """The answer does not fit the schema that was asked for."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_OUTPUT_INVALID"]



class ConfigInvalid(KfmError):
    """The configuration cannot be used; the one before stays."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_CONFIG_INVALID"]



class PoolUnavailable(KfmError):
    """No worker of the step's pool took it in time."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_POOL_UNAVAILABLE"]



class ToolInvalid(KfmError):
    """A worker's tool cannot be offered: its name is taken, or its schema or contract is none."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_TOOL_INVALID"]



class MemoryNotFound(KfmError):
    """There is no such collection or document."""

    row: ClassVar[ErrorRow] = ERRORS["REASON_MEMORY_NOT_FOUND"]


ERROR_CLASSES: dict[str, type[KfmError]] = {
    "REASON_TURN_NOT_FOUND": TurnNotFound,
    "REASON_STEP_NOT_FOUND": StepNotFound,
    "REASON_DEAD_LETTER_NOT_FOUND": DeadLetterNotFound,
    "REASON_PERSONALITY_NOT_FOUND": PersonalityNotFound,
    "REASON_INVALID_ARGUMENT": InvalidArgument,
    "REASON_MALFORMED_REQUEST": MalformedRequest,
    "REASON_PAGE_TOKEN_INVALID": PageTokenInvalid,
    "REASON_SESSION_BUSY": SessionBusy,
    "REASON_TURN_FINISHED": TurnFinished,
    "REASON_TURN_NOT_FINISHED": TurnNotFinished,
    "REASON_STATE_CONFLICT": StateConflict,
    "REASON_IDEMPOTENCY_CONFLICT": IdempotencyConflict,
    "REASON_PLAN_INVALID": PlanInvalid,
    "REASON_PLAN_NOT_POSSIBLE": PlanNotPossible,
    "REASON_STEP_LIMIT_EXCEEDED": StepLimitExceeded,
    "REASON_STEP_TIMEOUT": StepTimeout,
    "REASON_STEP_FAILED": StepFailed,
    "REASON_STEP_OUTCOME_UNKNOWN": StepOutcomeUnknown,
    "REASON_STEP_CRASHES_PROCESS": StepCrashesProcess,
    "REASON_TOOL_NOT_FOUND": ToolNotFound,
    "REASON_TOOL_ARGUMENTS_INVALID": ToolArgumentsInvalid,
    "REASON_TOOL_FAILED": ToolFailed,
    "REASON_TOOL_UNAVAILABLE": ToolUnavailable,
    "REASON_PROVIDER_UNAVAILABLE": ProviderUnavailable,
    "REASON_BUDGET_EXCEEDED": BudgetExceeded,
    "REASON_TURN_TIMEOUT": TurnTimeout,
    "REASON_CANCELLED": Cancelled,
    "REASON_FENCED": Fenced,
    "REASON_NOT_OWNER": NotOwner,
    "REASON_PAYLOAD_TOO_LARGE": PayloadTooLarge,
    "REASON_OVERLOADED": Overloaded,
    "REASON_TOO_MANY_STREAMS": TooManyStreams,
    "REASON_UNAVAILABLE": Unavailable,
    "REASON_DRAINING": Draining,
    "REASON_DEADLINE_EXCEEDED": DeadlineExceeded,
    "REASON_UNAUTHENTICATED": Unauthenticated,
    "REASON_PERMISSION_DENIED": PermissionDenied,
    "REASON_UNIMPLEMENTED": Unimplemented,
    "REASON_EVENT_TYPE_UNKNOWN": EventTypeUnknown,
    "REASON_EVENT_UNDECODABLE": EventUndecodable,
    "REASON_HISTORY_UNREADABLE": HistoryUnreadable,
    "REASON_INTERNAL": Internal,
    "REASON_SESSION_NOT_FOUND": SessionNotFound,
    "REASON_MODEL_NOT_FOUND": ModelNotFound,
    "REASON_PROVIDER_RATE_LIMITED": ProviderRateLimited,
    "REASON_PROVIDER_REJECTED": ProviderRejected,
    "REASON_CONTEXT_OVERFLOW": ContextOverflow,
    "REASON_MODEL_REPLY_INVALID": ModelReplyInvalid,
    "REASON_CONTENT_REFUSED": ContentRefused,
    "REASON_OUTPUT_INVALID": OutputInvalid,
    "REASON_CONFIG_INVALID": ConfigInvalid,
    "REASON_POOL_UNAVAILABLE": PoolUnavailable,
    "REASON_TOOL_INVALID": ToolInvalid,
    "REASON_MEMORY_NOT_FOUND": MemoryNotFound,
}


def error_of(reason: str, message: str = "", *, metadata: Mapping[str, str] | None = None) -> KfmError:
    """The error for a reason by name. A reason that this release does not know becomes Internal and stands in its metadata."""
    kind = ERROR_CLASSES.get(reason)
    if kind is None:
        return Internal(message, metadata={**(metadata or {}), "reason": reason})
    return kind(message, metadata=metadata)
