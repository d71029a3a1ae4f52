"""Failures of providers, in the words of the error model: one mapping for every adapter."""

import email.utils
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from kfm_server.ports.models import ProviderError, TokenUsage

UNAVAILABLE: Final = "REASON_PROVIDER_UNAVAILABLE"
RATE_LIMITED: Final = "REASON_PROVIDER_RATE_LIMITED"
REJECTED: Final = "REASON_PROVIDER_REJECTED"
OVERFLOW: Final = "REASON_CONTEXT_OVERFLOW"
INVALID: Final = "REASON_MODEL_REPLY_INVALID"
REFUSED: Final = "REASON_CONTENT_REFUSED"

MALFORMED: Final = (ValueError, KeyError, TypeError, AttributeError, IndexError)
"""What reading a reply raises that is not of the provider's form."""
MAX_RETRY_AFTER_MS: Final = 24 * 3600 * 1000
"""Longest wait that a provider may ask for; a longer one counts as this."""
MAX_TOLD: Final = 300
"""Characters of a provider's own message that a user sees."""

_OVERFLOW_CODES = {
    "context_length_exceeded",
    "exceed_context_size_error",
    "request_too_large",
    "string_above_max_length",
}
_OVERFLOW = re.compile(
    r"context[ _](?:length|window|size)|maximum (?:prompt|input|number of tokens)|too many (?:input )?tokens|"
    r"(?:prompt|input) is too long|token limit",
    re.IGNORECASE,
)
_REFUSED_CODES = {"content_filter", "content_policy_violation", "responsibleaipolicyviolation"}
_REFUSED = re.compile(r"content filter(?:ing)? policy", re.IGNORECASE)
_QUOTA_CODES = {
    "billing_error",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credit_balance_exhausted",
    "enforced_spend_limit_reached",
    "insufficient_quota",
}
_SECRET = re.compile(r"(?:sk|pk|rk|key|api[-_]?key|bearer|basic)[-_ =:]+[\w.*+/=-]{6,}", re.IGNORECASE)


def failure(
    reason: str,
    message: str,
    *,
    retryable: bool | None = None,
    retry_after_ms: int = 0,
    usage: TokenUsage | None = None,
    request_id: str = "",
    **metadata: str,
) -> ProviderError:
    """A failure; whether it is retryable follows from the reason where it is not said."""
    if retryable is None:
        retryable = reason in (UNAVAILABLE, RATE_LIMITED, INVALID)
    return ProviderError(reason, message, retryable, retry_after_ms, usage, request_id, metadata)


def over_bound(what: str, limit: str, value: int) -> ProviderError:
    """A reply larger than we take. Not retryable: it would come again."""
    return failure(
        INVALID,
        f"The model's {what} is larger than {value} bytes.",
        retryable=False,
        limit=limit,
        max=str(value),
    )


def unreadable(request_id: str = "", usage: TokenUsage | None = None) -> ProviderError:
    """What came is nothing, or nothing that can be read: an adapter cannot always tell which."""
    return failure(
        INVALID,
        "The model's reply cannot be read: it is empty or not of the provider's form.",
        request_id=request_id,
        usage=usage,
    )


def cut(request_id: str = "", usage: TokenUsage | None = None) -> ProviderError:
    """The connection ended before the reply did."""
    return failure(
        UNAVAILABLE,
        "The model provider ended the connection within the reply.",
        request_id=request_id,
        usage=usage,
    )


def not_asked(model: str, failures: int, seconds: float, last: str = "") -> ProviderError:
    """The call was not made: the breaker of the endpoint is open. It has cost nothing. `last`: how it failed last."""
    because = f" Last: {last[:300]}" if last else ""
    return failure(
        UNAVAILABLE,
        f"The model {model} is not asked: its provider failed {failures} times in a row; try in {seconds:.0f} s.{because}",
        retry_after_ms=round(seconds * 1000),
        breaker="open",
    )


def stalled(seconds: float, request_id: str = "", usage: TokenUsage | None = None) -> ProviderError:
    """Silence for longer than the call allows."""
    message = f"The model provider was silent for {seconds:g} s."
    return failure(UNAVAILABLE, message, request_id=request_id, usage=usage, limit="stall_seconds")


def from_status(
    status: int,
    body: Any,
    headers: Mapping[str, str],
    *,
    now: float,
    secrets: tuple[str, ...] = (),
    request_id: str = "",
) -> ProviderError:
    """What an HTTP status other than 2xx says. `body`: the answer as JSON or text; `now`: seconds since 1970."""
    code, _, said = _envelope(body)
    reason, message = _meaning(status, code, said)
    if status not in (401, 403) and said:
        message += f" It says: {told(said, secrets)}"
    wait = retry_after_ms(headers, now) if reason in (UNAVAILABLE, RATE_LIMITED) else 0
    error = failure(reason, message, retry_after_ms=wait, request_id=request_id, http_status=str(status))
    if code:
        error.metadata["provider_code"] = told(code, secrets)
    return error


def from_event(body: Any, *, secrets: tuple[str, ...] = (), usage: TokenUsage | None = None) -> ProviderError:
    """An error that came as an event of a stream, after the status 200."""
    code, status, _ = _envelope(body)
    if "rate_limit" in code:
        status = 429
    elif code in _OVERFLOW_CODES | _REFUSED_CODES or code == "invalid_request_error":
        status = 400
    error = from_status(status, body, {}, now=0.0, secrets=secrets)
    error.usage = usage
    del error.metadata["http_status"]
    return error


def _meaning(status: int, code: str, said: str) -> tuple[str, str]:
    shown = f"(HTTP {status})"
    if status in (401, 403):
        return REJECTED, f"The model provider refused the key or what it may do {shown}."
    if code in _QUOTA_CODES or status == 402:
        return REJECTED, f"The quota at the model provider is used up {shown}."
    if status == 429:
        return RATE_LIMITED, f"The model provider asks for fewer calls {shown}."
    if status == 413 or code in _OVERFLOW_CODES or (status in (400, 422) and _OVERFLOW.search(said)):
        return OVERFLOW, f"The conversation does not fit into the model {shown}."
    if status in (408, 409) or status >= 500:
        return UNAVAILABLE, f"The model provider failed {shown}."
    if code in _REFUSED_CODES or (status == 400 and _REFUSED.search(said)):
        return REFUSED, f"The provider's filter refused the content {shown}."
    if status < 400:
        return REJECTED, f"The model provider redirects elsewhere, which is not followed {shown}."
    return REJECTED, f"The model provider refused the call {shown}."


def _envelope(body: Any) -> tuple[str, int, str]:
    """The code, the status (500 if none is told) and the message of an error: OpenAI's envelope, with or without
    `error` around it, Anthropic's, Ollama's, or plain text. The code is the most particular of the names that it has.
    """
    if isinstance(body, str):
        return "", 500, body
    if not isinstance(body, dict):
        return "", 500, ""
    outer = cast("dict[str, Any]", body)
    inner: Any = outer.get("error", outer)
    if isinstance(inner, str):
        return "", 500, inner
    if not isinstance(inner, dict):
        return "", 500, ""
    error = cast("dict[str, Any]", inner)
    details: Any = error.get("details")
    particular = cast("dict[str, Any]", details).get("error_code") if isinstance(details, dict) else None
    names = [str(name).lower()[:100] for name in (particular, error.get("code"), error.get("type")) if name]
    status = next((int(name) for name in names if name.isdigit() and 300 <= int(name) <= 599), 500)
    said = error.get("message") or error.get("detail") or ""
    code = next((name for name in names if not name.isdigit()), "")
    return code, status, said if isinstance(said, str) else ""


def told(text: str, secrets: tuple[str, ...] = ()) -> str:
    """A provider's words as a user may see them: on one line, bounded, without what is or looks like a key."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[hidden]")
    text = _SECRET.sub("[hidden]", " ".join(text[: 4 * MAX_TOLD].split()))
    return text if len(text) <= MAX_TOLD else text[: MAX_TOLD - 1] + "…"


def retry_after_ms(headers: Mapping[str, str], now: float) -> int:
    """The wait that a provider names, in milliseconds, 0 if it names none: `retry-after-ms`, or `Retry-After` as
    seconds or as a date (against the answer's own `Date`, if it has one).
    """
    wait = 0.0
    precise, plain = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    try:
        wait = float(precise) if precise else float(plain) * 1000 if plain else 0.0
    except ValueError:
        until = _seconds(plain)
        wait = (until - (_seconds(headers.get("date", "")) or now)) * 1000 if until else 0.0
    return round(min(max(wait, 0.0), MAX_RETRY_AFTER_MS)) if wait == wait else 0


def _seconds(date: str) -> float:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return 0.0
