"""Logs: one JSON object a line on stderr, of ours and of every library; never a secret, never what users said."""

import json
import logging
import re
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import orjson
import structlog
from google.protobuf.message import Message

from kfm_server.context import log_facts
from kfm_server.secret import Secret

_Event = MutableMapping[str, Any]
_HIDDEN = "[redacted]"
_HIDDEN_KEYS = re.compile(
    r"(?:.*_|^)(?:token|authorization|api_?key|password|passwd|secret|cookie|credentials?|database_url|dsn)$",
    re.I,
)
_CONTENT_KEYS = frozenset(
    (
        "arguments",
        "arguments_json",
        "content",
        "input",
        "messages",
        "output",
        "output_json",
        "parameters_json",
        "prompt",
    )
)
"""What users and models say is never logged, whoever passes it."""
_LEAST_LENGTH = 4
"""Shorter secrets are not looked for: they would be found in every line."""
_LEVELS = logging.getLevelNamesMapping()

_level = logging.INFO
_secrets: tuple[bytes, ...] = ()
"""As they would stand in a line, the longest first."""


def configure(level: str) -> None:
    """Set logging up for the process: structlog and the standard library. Call once, before anything logs."""
    set_level(level)
    structlog.configure(
        processors=[_below_level, structlog.contextvars.merge_contextvars, *_COMMON, _render],
        wrapper_class=_Logger,
        logger_factory=structlog.BytesLoggerFactory(file=sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    logging.setLoggerClass(_Foreign)
    for name in list(logging.root.manager.loggerDict):
        logging.getLogger(name).handlers.clear()
    logging.root.handlers[:] = [_Handler()]
    logging.captureWarnings(True)


def set_level(level: str) -> None:
    """Log at this level and above, from now on. Libraries log warnings and above only: below, they tell contents."""
    global _level
    _level = _LEVELS[level.upper()]
    logging.root.setLevel(max(_level, logging.WARNING))


def hide(secrets: Iterable[Secret]) -> None:
    """Let none of these texts, nor of those before, stand in a line, wherever they come from."""
    global _secrets
    texts = {secret.reveal() for secret in secrets if len(secret.reveal()) >= _LEAST_LENGTH}
    _secrets = tuple(
        sorted({*_secrets, *(orjson.dumps(text)[1:-1] for text in texts)}, key=len, reverse=True)
    )


class _Logger(structlog.make_filtering_bound_logger(logging.DEBUG)):
    """Its level can change while loggers are kept."""

    def is_enabled_for(self, level: int) -> bool:
        return level >= _level


def _below_level(logger: object, method: str, event: _Event) -> _Event:
    if _LEVELS.get(method.upper(), logging.ERROR) < _level:  # `exception` is none of the names
        raise structlog.DropEvent
    return event


def _facts(logger: object, method: str, event: _Event) -> _Event:
    """What the work at hand is about, as trace_id."""
    for name, value in log_facts().items():
        event.setdefault(name, value)
    return event


def _redact(logger: object, method: str, event: _Event) -> _Event:
    for name, value in event.items():
        event[name] = _safe(name, value)
    return event


def _safe(name: str, value: Any) -> Any:
    if name in _CONTENT_KEYS or _HIDDEN_KEYS.fullmatch(name):
        return _HIDDEN if value else value
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(k): _safe(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_safe("", v) for v in value]
    return value


def _shown(value: object) -> str:
    if isinstance(value, Message):
        return f"<{value.DESCRIPTOR.full_name}>"  # its fields may be what a user said
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return repr(value)[:1000]


def _render(logger: object, method: str, event: _Event) -> bytes:
    try:
        line = orjson.dumps(event, default=_shown, option=orjson.OPT_NON_STR_KEYS)
    except (
        TypeError
    ):  # half a surrogate, or a number beyond 64 bits: a line that cannot be written must end no work
        line = json.dumps(event, default=_shown, ensure_ascii=False).encode(errors="backslashreplace")
    for secret in _secrets:
        if secret in line:
            line = line.replace(secret, _HIDDEN.encode())
    return line


_COMMON: tuple[Any, ...] = (
    _facts,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    # Without local variables: they hold users' messages, and the token.
    structlog.processors.ExceptionRenderer(structlog.tracebacks.ExceptionDictTransformer(show_locals=False)),
    _redact,
)


class _Handler(logging.Handler):
    """Writes the records of the standard library in the same form."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Only what is loud enough, also of a library that sets its own level."""
        return record.levelno >= max(_level, logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """One line; what cannot be formatted is said without its arguments."""
        try:
            text = record.getMessage()
        except Exception:  # its arguments are anybody's objects
            text = str(record.msg)
        event: _Event = {"event": text, "logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            event["exc_info"] = record.exc_info
        method = record.levelname.lower()
        for process in _COMMON:
            event = process(None, method, event)
        sys.stderr.buffer.write(_render(None, method, event) + b"\n")
        sys.stderr.buffer.flush()


class _Foreign(logging.Logger):
    """A library's logger: what it logs goes to the root's handler, and to none that it adds itself."""

    def addHandler(self, hdlr: logging.Handler) -> None:
        del hdlr
