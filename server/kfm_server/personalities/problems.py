"""What is wrong with a pack: file, line and a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass

MOST_PROBLEMS = 100
"""Problems of one pack that are told."""
MOST_CHARACTERS = 1_000
"""Of one of them."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """`line` counts from 1; 0 where the whole file is meant."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        told = f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"
        return told[:MOST_CHARACTERS].encode(errors="replace").decode()  # a disk's names need not be Unicode


class PackInvalid(Exception):
    """A pack that cannot be used; `problems` has what was found, at least one and the first MOST_PROBLEMS."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems)[:MOST_PROBLEMS])
        super().__init__("; ".join(map(str, self.problems)))
