"""How servers and workers name attempts to each other, and how many of them a worker may hold."""

from typing import Final

from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server.ports.steps import Attempt

MOST_HELD: Final = 1000
"""Attempts that one hello or heartbeat can name: a worker holds no more, running or with a result to tell."""

Key = tuple[str, str, int]
"""What tells attempts apart. An epoch does not: whoever takes a session over goes on with its attempts."""


def key_of(ref: pb.AttemptRef) -> Key:
    """Turn, step and attempt."""
    return ref.turn_id, ref.step_key, ref.attempt


def ref_of(attempt: Attempt) -> pb.AttemptRef:
    """The attempt as workers name it."""
    return pb.AttemptRef(
        session_id=attempt.context.session_id,
        turn_id=attempt.turn_id,
        step_key=attempt.step_key,
        attempt=attempt.attempt,
        epoch=attempt.epoch,
    )
