"""Turns that ended in this process lately. They do not change any more, and are asked for at once."""

from kfm_server.turns.state import Turn

MOST_TURNS = 256
MOST_BYTES = 16 * 1024
"""Of one turn, message and outputs together: a larger one is read from the journal."""


class RecentTurns:
    """The last MOST_TURNS of them."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}

    def add(self, turn: Turn) -> None:
        """Keep a turn that has finished, unless it is large."""
        size = turn.request.ByteSize() + sum(len(step.output_json) for step in turn.steps.values())
        if size > MOST_BYTES:
            return
        self._turns[turn.turn_id] = turn
        if len(self._turns) > MOST_TURNS:
            del self._turns[next(iter(self._turns))]

    def get(self, turn_id: str) -> Turn | None:
        """The turn, if it is one of them."""
        return self._turns.get(turn_id)
