"""Medians of the rounds, and the ratios against the goals."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Key = tuple[str, int]
"""A system's name and a concurrency."""
PEERS = ("restate", "langgraph", "dbos")


@dataclass(frozen=True, slots=True)
class Sample:
    """One window: turns per second, milliseconds, microseconds of CPU per turn on all sides."""

    rate: float
    p50_ms: float
    p99_ms: float
    cpu_us: float


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two measurements of one field, and what it should be."""

    text: str
    field: str
    conc: int
    ours: str
    theirs: str
    bound: float
    at_most: bool = False


GOALS = (
    Goal("PURE steps against the floor", "rate", 16, "kfm", "floor", 0.8),
    Goal("PURE steps against the floor", "rate", 64, "kfm", "floor", 0.65),
    Goal("AT_MOST_ONCE steps against the floor", "rate", 16, "kfm-amo", "floor", 0.6),
    Goal("AT_MOST_ONCE steps against Restate, like for like", "rate", 16, "kfm-amo", "restate", 2.5),
    Goal("CPU per turn against the floor's", "cpu_us", 16, "kfm", "floor", 1.3, at_most=True),
    Goal("PURE steps against Restate", "rate", 16, "kfm", "restate", 3.0),
    Goal("PURE steps against LangGraph", "rate", 16, "kfm", "langgraph", 4.0),
    Goal("PURE steps against DBOS", "rate", 16, "kfm", "dbos", 8.0),
    Goal("PURE steps against Restate", "rate", 64, "kfm", "restate", 3.5),
    Goal("PURE steps against LangGraph", "rate", 64, "kfm", "langgraph", 8.0),
    Goal("median latency against the best peer's", "p50_ms", 1, "kfm", "best peer", 0.4, at_most=True),
    Goal("through the SDK against the raw stub", "rate", 1, "kfm-sdk", "kfm", 0.7),
    Goal("through the SDK against the raw stub", "rate", 16, "kfm-sdk", "kfm", 0.7),
    Goal("through the SDK against the raw stub", "rate", 64, "kfm-sdk", "kfm", 0.7),
)


def median(samples: Sequence[Sample], field: str) -> float:
    """The median of one field over the rounds."""
    return statistics.median(getattr(s, field) for s in samples)


def line(key: Key, samples: Sequence[Sample]) -> str:
    """One JSON line: the medians, and the spread of the rate over the rounds."""
    rates = [s.rate for s in samples]
    return json.dumps(
        {
            "name": key[0],
            "conc": key[1],
            "rate": round(median(samples, "rate"), 1),
            "p50_ms": round(median(samples, "p50_ms"), 3),
            "p99_ms": round(median(samples, "p99_ms"), 3),
            "cpu_us": round(median(samples, "cpu_us"), 1),
            "rate_min": round(min(rates), 1),
            "rate_max": round(max(rates), 1),
            "rounds": len(samples),
        }
    )


def ratios(measured: Mapping[Key, Sequence[Sample]]) -> list[str]:
    """A line of text for each goal: the ratio of medians reached, the goal, and whether it is met."""

    def value(name: str, goal: Goal) -> float | None:
        if name == "best peer":
            found = [v for peer in PEERS if (v := value(peer, goal)) is not None]
            return min(found) if found else None
        samples = measured.get((name, goal.conc))
        return median(samples, goal.field) if samples else None

    lines = [f"{'ratio of medians':<62}{'conc':>4}{'reached':>9}{'goal':>9}"]
    for goal in GOALS:
        ours, theirs = value(goal.ours, goal), value(goal.theirs, goal)
        head = f"{goal.text + ' (' + goal.field + ')':<62}{goal.conc:>4}"
        wanted = f"{'<=' if goal.at_most else '>='} {goal.bound:g}"
        if ours is None or not theirs:
            absent = goal.ours if ours is None else goal.theirs
            lines.append(f"{head}{'-':>9}{wanted:>9}  NOT MEASURED: no {absent}")
            continue
        ratio = ours / theirs
        met = ratio <= goal.bound if goal.at_most else ratio >= goal.bound
        lines.append(f"{head}{ratio:>9.2f}{wanted:>9}  {'met' if met else 'MISSED'}")
    return lines
