"""How single values are read: from TOML with its types, from the environment and flags as text."""

import contextlib
import math
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any

Reader = Callable[[object], Any]
"""Takes what a source holds; raises ValueError with what it should be."""


class Untyped(str):
    """Text of the environment or of a flag, where numbers are text too."""

    __slots__ = ()


def text(most: int = 4096) -> Reader:
    """A text of at most `most` characters."""

    def read(value: object) -> str:
        if not isinstance(value, str) or len(value) > most:
            raise ValueError(f"not a text of at most {most} characters")
        return str(value)

    return read


def matching(pattern: str, wanted: str) -> Reader:
    """A text that is empty or fits the pattern; `wanted` says it in words."""
    compiled = re.compile(pattern)

    def read(value: object) -> str:
        if not isinstance(value, str) or (value and not compiled.fullmatch(value)):
            raise ValueError(f"not {wanted}")
        return str(value)

    return read


def one_of(*names: str) -> Reader:
    """One of the names."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"not one of {', '.join(names)}")
        return str(value)

    return read


def whole(least: int, most: int) -> Reader:
    """A whole number within bounds."""

    def read(value: object) -> int:
        if isinstance(value, Untyped) and re.fullmatch(r"[0-9]{1,18}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"not a whole number from {least} to {most}")
        return value

    return read


def number(least: float, most: float, what: str = "a number") -> Reader:
    """A number within bounds."""

    def read(value: object) -> float:
        found = math.nan
        if isinstance(value, Untyped):
            with contextlib.suppress(ValueError):
                found = float(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found = float(value)
        if not least <= found <= most:  # false of nan, too
            raise ValueError(f"not {what} from {least:g} to {most:g}")
        return found

    return read


def usd(scale: int, most: float) -> Reader:
    """US dollars, kept as a whole number of dollars / `scale`; rounded up, so that bounds hold."""
    bounded = number(0, most, "US dollars")

    def read(value: object) -> int:
        return int((Decimal(repr(bounded(value))) * scale).to_integral_value(ROUND_CEILING))

    return read


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}


def seconds(least: float, most: float) -> Reader:
    """A duration: a number of seconds, or a text as `500ms`, `30s`, `5m`, `1h`, `2d`."""
    bounded = number(least, most)

    def read(value: object) -> float:
        match = (
            re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)", value)
            if isinstance(value, str)
            else None
        )
        try:
            return bounded(float(match[1]) * _UNITS[match[2]] if match else value)
        except ValueError:
            raise ValueError(
                f"not a duration from {least:g}s to {most:g}s, as 500ms, 30s, 5m or 1h"
            ) from None

    return read


def flag(value: object) -> bool:
    """True or false."""
    if isinstance(value, Untyped) and value in ("true", "false"):
        return value == "true"
    if not isinstance(value, bool):
        raise ValueError("not true or false")
    return value


def names(most: int, *, commas: bool = False) -> Reader:
    """A list of different names; with `commas` also a text with commas between them."""

    def read(value: object) -> tuple[str, ...]:
        if commas and isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        found: list[object] = list(value) if isinstance(value, list) else [None]
        if len(found) > most or not all(isinstance(n, str) and NAME.fullmatch(n) for n in found):
            raise ValueError(f"not a list of at most {most} names")
        if len(set(found)) < len(found):
            raise ValueError("a list that has a name twice")
        return tuple(str(n) for n in found)

    return read


def texts(most: int) -> Reader:
    """A list of texts."""
    one = text()

    def read(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise ValueError(f"not a list of at most {most} texts")
        return tuple(map(one, value))

    return read


def some_of(*names: str) -> Reader:
    """One or more of the names, as a list or with commas between; answered in the order of `names`."""

    def read(value: object) -> tuple[str, ...]:
        parts: list[object] = [part.strip() for part in value.split(",")] if isinstance(value, str) else []
        found = list(value) if isinstance(value, list) else parts
        if not found or not set(found) <= set(names) or len(set(found)) < len(found):
            raise ValueError(f"not one or more of {', '.join(names)}, each once")
        return tuple(name for name in names if name in found)

    return read


NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


def name(value: object) -> str:
    """A name of one or more parts."""
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("not a name: 1 to 128 of A-Z a-z 0-9 . _ : / -")
    return str(value)


def directory(value: object) -> Path:
    """A path that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("no directory is named")
    return Path(value)


def database_url(value: object) -> str:
    """A URL of Postgres, or nothing."""
    if not isinstance(value, str) or (value and not value.startswith(("postgresql://", "postgres://"))):
        raise ValueError("not of the form postgresql://user:password@host:port/database")
    return str(value)


token = matching(r"[!-~]{1,1024}", "1 to 1024 visible ASCII characters, of which a space is none")
