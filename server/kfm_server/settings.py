"""Settings: the only reader of the environment. Flags win over KFM_* variables, those over defaults."""

import os
from collections.abc import Mapping
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
    """KFM_DATABASE_URL; empty is the embedded Postgres"""
    token: str = ""
    """KFM_TOKEN; when set, every door asks for it"""
    tools: str = ""
    """KFM_TOOLS; more tools, as `module:ATTRIBUTE`, separated by commas"""
    partitions: int = 16
    """KFM_PARTITIONS; fixed once a database is initialised"""
    advertised_address: str = ""
    """KFM_ADVERTISED_ADDRESS; where other processes reach the gRPC door; empty: where it listens"""
    retention_days: int = 0
    """KFM_RETENTION_DAYS; how long a turn is kept after its end, at least; 0 is for ever"""
    drain_seconds: float = 30.0
    """KFM_DRAIN_SECONDS; longest wait for running attempts at a stop"""
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
        return cls(**{k: _typed(k, v) for k, v in values.items()})


_MOST = {"partitions": 1024, "max_in_flight": 100_000, "max_streams": 100_000}


def _names(known: Mapping[str, object]) -> list[str]:
    return [f"KFM_{name.upper()}" for name in known]


def _typed(name: str, value: object) -> Any:
    try:
        match name:
            case "home":
                return Path(str(value))
            case "partitions" | "max_in_flight" | "max_streams":
                number, most = int(str(value)), _MOST[name]
                if not 1 <= number <= most:
                    raise ValueError(f"not between 1 and {most}")
                return number
            case "retention_days":
                days = int(str(value))
                if not 0 <= days <= 36_500:
                    raise ValueError("not between 0 and 36500")
                return days
            case "drain_seconds":
                return float(str(value))
            case "log_level":
                if str(value) not in ("debug", "info", "warning", "error"):
                    raise ValueError("not one of debug, info, warning, error")
                return str(value)
            case _:
                return str(value)
    except ValueError as bad:
        raise SettingsError(f"KFM_{name.upper()}={value!r}: {bad}") from None
