"""The seam to other processes: what the owner of a turn tells its own watchers."""

from collections.abc import AsyncGenerator
from typing import Protocol

from kfm.turn.v1 import turn_pb2 as api


class OwnerAway(Exception):
    """The owner does not answer, or is no longer the owner. The journal has every event."""


class Owners(Protocol):
    """Follows turns at the processes that run them."""

    def watch(self, address: str, turn_id: str, after: int) -> AsyncGenerator[list[api.TurnUpdate]]:
        """What the process at `address` tells of the turn after a sequence, while it owns it. Raises OwnerAway."""
        ...
