"""What the matrix is made of: each failpoint that the code declares x the roles that pass it x the buses."""

import importlib
import pkgutil
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import kfm_server
from kfm_server import failpoints

Role = Literal["api", "runtime", "worker", "relay"]
Bus = Literal["bus_postgres", "bus_iggy"]
BUSES: tuple[Bus, ...] = get_args(Bus)

PASSED_BY: dict[str, tuple[Role, ...]] = {
    "bus.": ("runtime",),
    "inbox.": ("api",),
    "journal.": ("runtime",),
    "lane.": ("runtime",),
    "leases.acquire.": ("runtime",),
    "leases.renew.": ("api", "runtime"),
    "model.": ("runtime",),
    "pool.": ("api", "runtime"),
    "process.": ("api", "runtime"),
    "relay.": ("relay",),
    "tool.": ("runtime", "worker"),
    "worker.": ("api", "worker"),
    "worker.bus.": ("worker",),
    "worker.ready": ("worker",),
}
"""By the beginning of a point's name, the longest that fits: the processes whose work passes it.

The process with the clients is also the worker's other side, and a worker of the runtimes for it. The relay runs in a
runtime that has a broker.
"""
OVER_A_BROKER = ("relay.", "worker.bus.")
"""Points that nothing passes without one."""
STARTING = (
    "process.ready",
    "worker.ready",
    "worker.bus.ready",
    "leases.acquire.before",
    "leases.acquire.after",
)
"""Points that are passed when a process starts: turns are in flight already then."""
OFTEN = ("journal.append.", "journal.commit.", "lane.", "tool.")
"""Points that a turn passes again and again: one cell for the first passage, one for a drawn one."""
LATER = 12
"""The latest passage that is drawn."""


@dataclass(frozen=True)
class Cell:
    """One kill: of a process of `role`, when it passes `point` for the `nth` time."""

    point: str
    nth: int
    role: Role
    bus: Bus

    @property
    def name(self) -> str:
        """Unique in a run."""
        return f"{self.bus}/{self.role}/{self.point}:{self.nth}"

    @property
    def process(self) -> str:
        """The process of the site that is killed. A relay is killed with the runtime that it runs in."""
        match self.role:
            case "api":
                return "api"
            case "worker":
                return "bus worker" if self.point.startswith("worker.bus.") else "worker"
            case _:
                return "runtime"

    @property
    def starting(self) -> bool:
        """The process dies while it starts."""
        return self.point in STARTING


def declared() -> list[str]:
    """Every failpoint of the code: importing all of it declares them."""
    for module in pkgutil.walk_packages(kfm_server.__path__, "kfm_server."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted(failpoints.POINTS)


def roles_of(point: str) -> tuple[Role, ...]:
    """Who passes it. LookupError for a point that PASSED_BY does not know: it has to be added there."""
    fitting = [beginning for beginning in PASSED_BY if point.startswith(beginning)]
    if not fitting:
        raise LookupError(f"which processes pass {point!r}? say so in {__name__}.PASSED_BY")
    return PASSED_BY[max(fitting, key=len)]


def cells(seed: int, buses: Sequence[Bus] = BUSES) -> list[Cell]:
    """All of them, in a fixed order; `seed` draws the later passages. See OVER_A_BROKER."""
    made: list[Cell] = []
    for bus in buses:
        for point in declared():
            if point.startswith(OVER_A_BROKER) and bus == "bus_postgres":
                continue
            for role in roles_of(point):
                draw = random.Random(f"{seed} {point} {role} {bus}")
                passages = [1, draw.randint(2, LATER)] if point.startswith(OFTEN) else [1]
                made += [Cell(point, nth, role, bus) for nth in passages]
    return made
