"""What lanes work with."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from kfm_server.clock import CallLater, Clock, on_the_loop
from kfm_server.ports.journal import Journal
from kfm_server.ports.steps import PoolRunner
from kfm_server.runtime.broadcaster import Broadcaster
from kfm_server.runtime.recent import RecentTurns
from kfm_server.turns.decide.draft import World


class Owner(Protocol):
    """The partition that a lane belongs to, as its lane sees it."""

    @property
    def partition(self) -> int:
        """Number of the partition."""
        ...

    @property
    def epoch(self) -> int:
        """Epoch under which this process owns it."""
        ...

    def may_start(self) -> bool:
        """The lease is surely still ours: an effect may start."""
        ...

    def fenced(self) -> None:
        """An append was refused: another process owns the partition."""
        ...


@dataclass(frozen=True, slots=True)
class LaneParts:
    """What every lane works with."""

    journal: Journal
    runner: PoolRunner
    clock: Clock
    world: World
    broadcaster: Broadcaster
    spawn: Callable[[Coroutine[Any, Any, None], str], asyncio.Task[None]]
    late_result: Callable[[], None]
    recent: RecentTurns = field(default_factory=RecentTurns)
    call_later: CallLater = on_the_loop
