"""Where settings come from: config.toml with the line of each value, the environment, and flags."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kfm_server.settings.readers import Untyped
from kfm_server.settings.schema import KEYS, SettingsError

Stamp = tuple[int, int, int]
"""Tells one state of a file from another."""
MAX_FILE_BYTES = 1024 * 1024
_ELSEWHERE = frozenset({"KFM_CONFIG", "KFM_ENDPOINT", "KFM_FAILPOINTS", "KFM_PROFILE", "KFM_TLS_CA"})
"""Variables that are read, but are no settings of the server: where they are, and what clients read."""
_OPENS_TEXT = re.compile(r"""[\w.\s-]+=\s*("{3}|'{3})""")
_ENDS = ('"""', "'''", "]", "}")
"""One of these stands in the last line of whatever takes several."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value as a source holds it. `place` names the source: `config.toml:12`, `KFM_TOKEN`, `flag`."""

    value: object
    place: str


@dataclass(frozen=True, slots=True)
class Document:
    """config.toml: its values and its tables by their names' parts, in the order of the file."""

    path: str
    values: Mapping[tuple[str, ...], Found]
    tables: Mapping[tuple[str, ...], str]


def stamp(path: Path) -> Stamp:
    """Of the file as it is now; of none, too."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0, 0
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_file(path: Path) -> Document:
    """Read and parse. Raises SettingsError with the line, FileNotFoundError if there is none."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except NotADirectoryError:
        raise FileNotFoundError(path) from None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return parse(raw.decode(), str(path))
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path}:{line}: not UTF-8") from None


def parse(text: str, path: str) -> Document:
    """The values and tables of a text of TOML. Raises SettingsError."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        at = re.search(r" \(at line (\d+), column \d+\)$", message)
        line = int(at[1]) if at else text.count("\n") + 1
        raise SettingsError(f"{path}:{line}: no TOML: {message[: at.start()] if at else message}") from None
    values: dict[tuple[str, ...], Found] = {}
    tables: dict[tuple[str, ...], str] = {}
    inside: tuple[str, ...] = ()
    for line, statement, table in _statements(text.replace("\r\n", "\n")):
        place = f"{path}:{line}"
        if statement.lstrip().startswith("["):
            inside = _header(table)
            if statement.lstrip().startswith("[["):
                raise SettingsError(f"{place}: [[{'.'.join(inside)}]] is a list of tables, and none is known")
            tables.setdefault(inside, place)
            continue
        for name, value in _leaves(table, inside):
            if isinstance(value, dict):
                tables.setdefault(name, place)
            else:
                values[name] = Found(value, place)
    return Document(path, values, tables)


def _statements(text: str) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Each statement of a valid document, with its first line and what it says: as many lines as make it one."""
    held: list[str] = []
    first, ends = 0, _ENDS
    for number, line in enumerate(text.split("\n"), 1):
        if not held:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            opened = _OPENS_TEXT.match(line)
            first, ends = number, (opened[1],) if opened else _ENDS
        held.append(line)
        if len(held) > 1 and not any(end in line for end in ends):
            continue  # to try at every line would take a long text the square of its length
        statement = "\n".join(held)
        try:
            table = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # goes on in the next line
        yield first, statement, table
        held.clear()


def _header(table: Any) -> tuple[str, ...]:
    """The name in `[a.b]` or `[[a.b]]`."""
    name: list[str] = []
    while isinstance(table, dict) and table:
        ((part, table),) = table.items()
        name.append(part)
        if isinstance(table, list):
            break
    return tuple(name)


def _leaves(table: Mapping[str, Any], inside: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every value below a table; a table is given too, before what it holds."""
    for part, value in table.items():
        name = (*inside, part)
        yield name, value
        if isinstance(value, dict):
            yield from _leaves(value, name)


def from_environment(environment: Mapping[str, str], problems: list[str]) -> dict[str, Found]:
    """The settings in KFM_* variables. One that means nothing is a problem: a misspelt setting is not silently lost."""
    known = {key.variable: key for key in KEYS if key.variable}
    found: dict[str, Found] = {}
    for variable, text in environment.items():
        if not variable.startswith("KFM_") or variable in _ELSEWHERE or variable.startswith("KFM_TEST_"):
            continue
        key = known.get(variable)
        if key is None:
            there = close(variable, known) or f"; there are: {', '.join(sorted(known))}"
            problems.append(f"{variable} is no setting{there}")
        else:
            found[key.name] = Found(Untyped(text), variable)
    return found


def close(name: str, known: Mapping[str, object]) -> str:
    """A question that names the known name which is most like this one; empty if none is."""
    import difflib

    near = difflib.get_close_matches(name, list(known), 1, 0.7)
    return f"; did you mean {near[0]}?" if near else ""
