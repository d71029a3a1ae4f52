"""Settings: the only reader of the environment. Flags win over KFM_* variables, those over defaults."""

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


class SettingsError(Exception):
    """A setting cannot be used; the message names it and says what would do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that rules where and how the server runs. Durations in seconds."""

    home: Path = Path(".kfm")
    """State: the embedded database and endpoints.json. KFM_HOME"""
    grpc_address: str = "127.0.0.1:50051"
    """KFM_GRPC_ADDRESS; port 0 takes a free one"""
    http_address: str = "127.0.0.1:8080"
    """KFM_HTTP_ADDRESS; port 0 takes a free one"""
    database_url: str = ""
    """KFM_DATABASE_URL; a postgresql:// URL of Postgres 15 or newer; empty is the embedded one"""
    token: str = ""
    """KFM_TOKEN; visible ASCII that every door asks for, 8 characters or more beyond loopback; empty asks for none"""
    tools: str = ""
    """KFM_TOOLS; more tools, as `module:ATTRIBUTE`, separated by commas"""
    partitions: int = 16
    """KFM_PARTITIONS, 1 to 1024; fixed once a database is initialised"""
    advertised_address: str = ""
    """KFM_ADVERTISED_ADDRESS; where other processes reach the gRPC door; empty: where it listens"""
    retention_days: int = 0
    """KFM_RETENTION_DAYS; how long a turn is kept after its end, at least; 0 is for ever"""
    drain_seconds: float = 30.0
    """KFM_DRAIN_SECONDS, 0 to 3600; longest wait for running attempts at a stop"""
    max_in_flight: int = 1_024
    """KFM_MAX_IN_FLIGHT; unary calls, and turns on their way in, at one time"""
    max_streams: int = 12_000
    """KFM_MAX_STREAMS; streams and waiting calls at one time"""
    log_level: str = "info"
    """KFM_LOG_LEVEL: debug, info, warning or error"""

    @classmethod
    def load(
        cls, overrides: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
    ) -> "Settings":
        """Read the environment, then the overrides that are not None. Raises SettingsError.

        A KFM_ variable that means nothing is an error: a misspelt setting must not be silently lost.
        """
        source = dict(os.environ if environment is None else environment)
        known = {f.name: f for f in fields(cls)}
        elsewhere = {"KFM_ENDPOINT", "KFM_FAILPOINTS"}
        values: dict[str, object] = {}
        for name, text in source.items():
            if not name.startswith("KFM_") or name in elsewhere or name.startswith("KFM_TEST_"):
                continue
            field = name.removeprefix("KFM_").lower()
            if field not in known:
                raise SettingsError(f"{name} is no setting; there are: {', '.join(sorted(_names(known)))}")
            values[field] = text
        values |= {k: v for k, v in (overrides or {}).items() if v is not None}
        return cls(**{k: _typed(k, str(v)) for k, v in values.items()})


def setting(field: str) -> str:
    """The variable that sets a field."""
    return f"KFM_{field.upper()}"


def _names(known: Mapping[str, object]) -> list[str]:
    return [setting(name) for name in known]


def _typed(name: str, text: str) -> Any:
    try:
        return _READERS.get(name, str)(text)
    except ValueError as bad:
        shown = "" if name in _SECRET else f"={text!r}"
        raise SettingsError(f"{setting(name)}{shown}: {bad}") from None


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"not a whole number from {least} to {most}")
        return int(text)

    return read


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= 3600:  # false of nan, too
        raise ValueError("not a number of seconds from 0 to 3600")
    return seconds


def _home(text: str) -> Path:
    if not text.strip():
        raise ValueError("no directory is named")
    return Path(text)


def _token(text: str) -> str:
    if text and not re.fullmatch(r"[!-~]{1,1024}", text):
        raise ValueError("not 1 to 1024 visible ASCII characters, of which a space is none")
    return text


def _database_url(text: str) -> str:
    if text and not text.startswith(("postgresql://", "postgres://")):
        raise ValueError("not of the form postgresql://user:password@host:port/database")
    return text


def _log_level(text: str) -> str:
    if text not in ("debug", "info", "warning", "error"):
        raise ValueError("not one of debug, info, warning, error")
    return text


_SECRET = ("token", "database_url")
_READERS: Mapping[str, Callable[[str], object]] = {
    "home": _home,
    "database_url": _database_url,
    "token": _token,
    "partitions": _whole(1, 1024),
    "retention_days": _whole(0, 36_500),
    "drain_seconds": _seconds,
    "max_in_flight": _whole(1, 100_000),
    "max_streams": _whole(1, 100_000),
    "log_level": _log_level,
}
"""How a field is read; the rest are texts that their users check."""
