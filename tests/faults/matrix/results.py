"""What cells counted, as JSON lines: a run may be spread over many sittings."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

RESULTS = Path(__file__).with_name("results.jsonl")
"""The published run's."""


@dataclass(frozen=True)
class Result:
    """Of one cell. `in_flight`: turns that were neither ended nor in review when the process died; times in seconds."""

    point: str
    nth: int
    role: str
    bus: str
    seed: int
    hit: bool
    turns: int
    in_flight: int
    lost: int
    failed: int
    needs_review: int
    duplicates: dict[str, int]
    repeats: int
    missing: int
    gaps: int
    recovery: list[float]
    """From the kill to the end or the review of each turn in flight."""
    graced: list[float]
    """The same of turns that had to wait until a step, which may not start twice, had surely ended."""
    versions: dict[str, str] = field(default_factory=dict[str, str])
    why: list[str] = field(default_factory=list[str])
    """What went wrong, or slowly."""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """The cell."""
        return self.bus, self.role, self.point, self.nth

    @property
    def green(self) -> bool:
        """The point was hit, and nothing was lost, duplicated, left out or failed."""
        wrong = (self.lost, self.failed, self.missing, self.gaps, *self.duplicates.values())
        return self.hit and not any(wrong)


def append(path: Path, result: Result) -> None:
    """Add it to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def latest(path: Path) -> list[Result]:
    """Of each cell the last result, in the order of cells."""
    if not path.exists():
        return []
    found = {(r.key, r.seed): r for r in map(_parse, path.read_text().splitlines())}
    return sorted(found.values(), key=lambda r: (r.bus, r.point, r.role, r.nth))


def _parse(line: str) -> Result:
    return Result(**json.loads(line))


def percentile(values: Iterable[float], part: float) -> float:
    """The smallest value that `part` of them do not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0
