"""How values are printed: a table for people, JSON, JSON lines or ids for programs; always on standard output."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum, StrEnum
from typing import Annotated, Any

import typer


class Format(StrEnum):
    """How a command prints."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"
    ID = "id"


Output = Annotated[
    Format | None,
    typer.Option("-o", "--output", help="table, json, jsonl or id; a table on a terminal, else JSON."),
]
Fields = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Only these fields of the JSON, as turn_id,usage.output_tokens; or these columns.",
    ),
]


class Form:
    """What `-o` and `--fields` ask for."""

    def __init__(self, output: Format | None, wanted: str = "") -> None:
        """BadParameter if a name of `--fields` is empty."""
        self.format = output or (Format.TABLE if sys.stdout.isatty() else Format.JSON)
        self.fields = [name.strip() for name in wanted.split(",")] if wanted else []
        if not all(self.fields):
            raise typer.BadParameter(f"a name is empty in {wanted!r}", param_hint="--fields")

    @property
    def json(self) -> bool:
        """JSON of either kind: when asked to, or when nobody watches a terminal."""
        return self.format in (Format.JSON, Format.JSONL)

    def rows(
        self, rows: Sequence[Any], columns: Sequence[str], cells: Callable[[Any], Sequence[Any]], id_of: str
    ) -> None:
        """Many: a JSON array, a JSON line for each, the field `id_of` of each, or a table with the cells of each."""
        if self.format == Format.JSON:
            _write([self._kept(row) for row in rows], indent=2)
        elif self.format == Format.TABLE:
            if self.fields:
                show_table([f.upper() for f in self.fields], [self._cells(row) for row in rows])
            else:
                show_table(columns, [cells(row) for row in rows])
        else:
            for row in rows:
                self.line(row, "", id_of)

    def one(self, value: Any, table: Callable[[], None], id_of: str) -> None:
        """One: JSON, its id, or what `table` prints."""
        if self.format == Format.JSON:
            _write(self._kept(value), indent=2)
        elif self.format == Format.TABLE and not self.fields:
            table()
        elif self.format == Format.TABLE:
            show_table([f.upper() for f in self.fields], [self._cells(value)])
        else:
            self.line(value, "", id_of)

    def line(self, value: Any, text: str, id_of: str) -> None:
        """One of a stream: a JSON line, its id, or the text."""
        if self.json:
            _write(self._kept(value), indent=None)
        elif self.format == Format.ID:
            _out(clean(getattr(value, id_of)))
        else:
            _out(clean("  ".join(map(str, self._cells(value)))) if self.fields else text)

    def _kept(self, value: Any) -> Any:
        from xenocomm.jsonable import to_json

        found = to_json(value)
        return {name: self._found(value, found, name) for name in self.fields} if self.fields else found

    def _cells(self, value: Any) -> list[Any]:
        return [
            cell if isinstance(cell, str | int | float) else json.dumps(cell, ensure_ascii=False)
            for cell in self._kept(value).values()
        ]

    def _found(self, value: Any, held: Any, name: str) -> Any:
        first, _, _ = name.partition(".")
        there = [f.name for f in fields(value)] if is_dataclass(value) else list(held)
        if first not in there:
            raise typer.BadParameter(
                f"there is no field {first!r}, only: {', '.join(there)}", param_hint="--fields"
            )
        for part in name.split("."):
            if isinstance(held, list) and part.isdecimal() and int(part) < len(held):
                held = held[int(part)]
            elif isinstance(held, Mapping):
                held = held.get(part)
            else:
                return None
        return held


def show_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A plain table; control characters of the data are made visible, so that they cannot drive the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    plain = bool(os.environ.get("NO_COLOR"))
    table = Table(box=None, pad_edge=False, header_style="" if plain else "bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    Console(no_color=plain).print(table)


def clean(value: Any) -> str:
    """Text that is safe on a terminal."""
    if isinstance(value, Enum):
        value = value.name
    text = "" if value is None else str(value)
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def _write(value: Any, indent: int | None) -> None:
    _out(json.dumps(value, ensure_ascii=False, indent=indent))


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
