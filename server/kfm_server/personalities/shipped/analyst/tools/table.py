"""Tables as lists of rows: read, described, selected, grouped, correlated. Only the standard library."""

import csv
import io
import math
import re
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
MOST_ROWS = 5000
MOST_COLUMNS = 100
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})\.[0-9]{1,30}|[-+]?[0-9]\.[0-9]{1,30}[eE][-+]?[0-9]{1,2}")
_WORDS = {"": None, "true": True, "false": False}


def parse_csv(text: str, delimiter: str = "") -> Row:
    """Rows of a CSV text whose first line names the columns."""
    reader = csv.reader(io.StringIO(text.lstrip("\ufeff")), delimiter=delimiter or _delimiter(text))
    names = _names(next(reader, []))
    rows: list[Row] = []
    left_out = uneven = 0
    for fields in reader:
        if not fields:
            continue
        uneven += len(fields) != len(names)
        if len(rows) == MOST_ROWS:
            left_out += 1
            continue
        padded = [*fields, *[""] * (len(names) - len(fields))]
        rows.append({name: _value(field) for name, field in zip(names, padded, strict=False)})
    return {"columns": names, "rows": rows, "rows_left_out": left_out, "lines_of_another_width": uneven}


def describe(rows: list[Row], columns: list[str] | None = None) -> Row:
    """What each column holds."""
    named = _columns(rows, columns)
    return {"rows": len(rows), "columns": [_described(rows, name) for name in named[:MOST_COLUMNS]]}


def select(
    rows: list[Row],
    where: Sequence[Row] = (),
    columns: list[str] | None = None,
    order_by: str = "",
    descending: bool = False,
    limit: int = 100,
) -> Row:
    """The rows that fit all conditions."""
    asked = [condition["column"] for condition in where] + ([order_by] if order_by else [])
    _columns(rows, asked)
    fitting = [row for row in rows if all(_fits(row.get(c["column"]), c) for c in where)]
    if order_by:
        there = [row for row in fitting if row.get(order_by) is not None]
        missing = [row for row in fitting if row.get(order_by) is None]
        fitting = sorted(there, key=lambda row: _rank(row[order_by]), reverse=descending) + missing
    names = _columns(rows, columns)
    shown = [{name: row.get(name) for name in names} for row in fitting[:limit]]
    return {"fitting": len(fitting), "of": len(rows), "rows": shown}


def aggregate(rows: list[Row], measures: list[Row], group_by: Sequence[str] = (), limit: int = 100) -> Row:
    """Measures of each group, the groups with the most rows first."""
    _columns(rows, [*group_by, *(m["of"] for m in measures if "of" in m)])
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(repr(row.get(name)) for name in group_by), []).append(row)
    largest = sorted(groups.values(), key=len, reverse=True)
    shown = [
        {name: group[0].get(name) for name in group_by} | {_title(m): _measure(group, m) for m in measures}
        for group in largest[:limit]
    ]
    return {"rows": len(rows), "groups": len(groups), "result": shown}


def correlate(rows: list[Row], columns: list[str] | None = None, method: str = "pearson") -> Row:
    """Correlation of each pair of columns."""
    named = _columns(rows, columns)
    if columns is None:
        named = [name for name in named if len(_numbers(rows, name)) >= 3][:20]
    found: list[Row] = []
    for index, first in enumerate(named):
        for second in named[index + 1 :]:
            both = [
                (float(row[first]), float(row[second]))
                for row in rows
                if _is_number(row.get(first)) and _is_number(row.get(second))
            ]
            found.append({"columns": [first, second], "rows": len(both), **_correlation(both, method)})
    found.sort(key=lambda pair: -abs(pair["r"] or 0.0))
    return {"method": method, "pairs": found}


def _delimiter(text: str) -> str:
    first = text.lstrip("\ufeff").splitlines()[0] if text.strip() else ""
    return max(",;\t|", key=first.count)


def _names(fields: list[str]) -> list[str]:
    if not any(field.strip() for field in fields):
        raise ValueError("the first line names no columns")
    if len(fields) > MOST_COLUMNS:
        raise ValueError(f"there are {len(fields)} columns; at most {MOST_COLUMNS} are read")
    names: list[str] = []
    for number, field in enumerate(fields, 1):
        name = field.strip() or f"column_{number}"
        while name in names:
            name += "_2"
        names.append(name)
    return names


def _value(field: str) -> Any:
    text = field.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _columns(rows: list[Row], asked: Sequence[str] | None) -> list[str]:
    there = dict.fromkeys(name for row in rows for name in row)
    for name in asked or ():
        if name not in there:
            raise ValueError(f"there is no column {name!r}; there are {', '.join(list(there)[:30])}")
    return list(there) if asked is None else list(asked)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(rows: list[Row], name: str) -> list[float]:
    return [row[name] for row in rows if _is_number(row.get(name))]


def _described(rows: list[Row], name: str) -> Row:
    values = [row.get(name) for row in rows]
    there = [value for value in values if value is not None]
    numbers = sorted(_numbers(rows, name))
    counted = Counter(repr(value) for value in there)
    shown = {repr(value): value for value in there}
    told: Row = {
        "column": name,
        "missing": len(values) - len(there),
        "distinct": len(counted),
        "numbers": len(numbers),
        "texts": sum(isinstance(value, str) for value in there),
        "most_frequent": [
            {"value": _short(shown[key]), "count": count} for key, count in counted.most_common(5)
        ],
    }
    if numbers:
        told |= {"min": numbers[0], "max": numbers[-1], "mean": statistics.fmean(numbers)}
        told["median"] = statistics.median(numbers)
    if len(numbers) > 1:
        lower, _, upper = statistics.quantiles(numbers, n=4, method="inclusive")
        told |= {"lower_quartile": lower, "upper_quartile": upper, "stdev": statistics.stdev(numbers)}
    return told


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= 80 else f"{text[:80]}…"


def _fits(value: Any, condition: Row) -> bool:
    relation, wanted = condition["is"], condition.get("value")
    match relation:
        case "missing" | "present":
            return (value is None) == (relation == "missing")
        case "=" | "!=":
            same = value == wanted and isinstance(value, bool) == isinstance(wanted, bool)
            return same == (relation == "=")
        case "in":
            if not isinstance(wanted, list):
                raise ValueError("`in` needs a list as its value")
            return value in wanted
        case "contains":
            return isinstance(value, str) and str(wanted).lower() in value.lower()
        case _:
            return _compares(value, relation, wanted)


def _compares(value: Any, relation: str, wanted: Any) -> bool:
    alike = (_is_number(value) and _is_number(wanted)) or (isinstance(value, str) and isinstance(wanted, str))
    if not alike:
        return False
    return {"<": value < wanted, "<=": value <= wanted, ">": value > wanted, ">=": value >= wanted}[relation]


def _rank(value: Any) -> tuple[int, Any]:
    """Numbers before texts before the rest."""
    if _is_number(value):
        return (0, value)
    return (1, value) if isinstance(value, str) else (2, repr(value))


def _title(measure: Row) -> str:
    return f"{measure['function']}_{measure['of']}" if "of" in measure else measure["function"]


def _measure(group: list[Row], measure: Row) -> Any:
    function, of = measure["function"], measure.get("of")
    if of is None:
        if function != "count":
            raise ValueError(f"the measure {function} needs `of`: a column")
        return len(group)
    there = [row[of] for row in group if row.get(of) is not None]
    if function == "count":
        return len(there)
    if function == "distinct":
        return len({repr(value) for value in there})
    if function in ("min", "max"):
        ranked = sorted(there, key=_rank)
        return ranked[0 if function == "min" else -1] if ranked else None
    numbers = [value for value in there if _is_number(value)]
    if there and not numbers:
        raise ValueError(f"the column {of!r} holds no numbers")
    return _of_numbers(function, numbers)


def _of_numbers(function: str, numbers: list[float]) -> Any:
    if function == "sum":
        whole = all(isinstance(number, int) for number in numbers)
        return sum(numbers) if whole else math.fsum(numbers)
    if len(numbers) < (2 if function == "stdev" else 1):
        return None
    return {"mean": statistics.fmean, "median": statistics.median, "stdev": statistics.stdev}[function](
        numbers
    )


def _correlation(pairs: list[tuple[float, float]], method: str) -> Row:
    if len(pairs) < 3:
        return {"r": None, "why": "fewer than 3 rows have both"}
    xs, ys = ([pair[side] for pair in pairs] for side in (0, 1))
    if method == "spearman":
        xs, ys = _ranks(xs), _ranks(ys)
    try:
        return {"r": round(statistics.correlation(xs, ys), 6)}
    except statistics.StatisticsError:
        return {"r": None, "why": "one of them is always the same"}


def _ranks(values: list[float]) -> list[float]:
    """From 1; values that are the same share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for index in order[start:end]:
            ranks[index] = (start + 1 + end) / 2
        start = end
    return ranks
