"""Failures in words that a model can act on: what was wrong, what is allowed, what to do next."""

from xenocomm._gen import errors
from xenocomm._gen.errors import XenocommError
from xenocomm.failures import ConnectFailed

_NEXT: tuple[tuple[type[XenocommError], str], ...] = (
    (
        ConnectFailed,
        "No KFM server runs there. Someone must start one (`kfm dev`, or this bridge with `kfm mcp --start`); then call again.",
    ),
    (errors.TurnNotFound, "kfm_turns_list shows the turns that exist."),
    (errors.StepNotFound, "kfm_turn_get with detail=full shows the steps."),
    (errors.TurnFinished, "It has ended: kfm_turn_get shows how."),
    (errors.StateConflict, "kfm_turn_get shows where it stands."),
    (errors.SessionBusy, "Wait for the other turn, or leave on_busy out to queue."),
    (errors.IdempotencyConflict, "Give a new idempotency_key, or the arguments of the first call."),
    (errors.PersonalityNotFound, "kfm_personalities_list shows those that exist."),
    (errors.PageTokenInvalid, "Start again without page_token, or keep the filters of the page before."),
    (errors.Unauthenticated, "The bridge needs the server's token: set KFM_TOKEN where it runs."),
    (errors.Unimplemented, "The server does not offer this; it may be of an older release."),
    (errors.DeadlineExceeded, "The call took too long; nothing is lost. Call again with the same arguments."),
    (errors.Unavailable, "Nothing is lost. Call again with the same arguments in a few seconds."),
)


def words(error: XenocommError) -> str:
    """One failure for a model."""
    lines = [f"{error.message} [{error.reason}]"]
    lines += [f"- {v.field}: {v.message}" for v in error.violations if v.message not in error.message]
    advice = next((text for kind, text in _NEXT if isinstance(error, kind)), "")
    if not advice and error.retryable:
        pause = f" after {error.retry_after_ms / 1000:g} s" if error.retry_after_ms else ""
        advice = f"It may succeed later: call again with the same arguments{pause}."
    return "\n".join(filter(None, (*lines, advice)))[:4_000]
