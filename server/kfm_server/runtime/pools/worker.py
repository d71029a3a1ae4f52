"""A worker as the hub knows it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.timestamp_pb2 import Timestamp
from kfm.worker.v1 import worker_service_pb2 as pb

from kfm_server.clock import Timer
from kfm_server.ports.attempt_refs import Key
from kfm_server.ports.steps import AttemptResult

Send = Callable[[pb.WorkResponse], None]


@dataclass(frozen=True, slots=True)
class Told:
    """A result, and of which attempt."""

    ref: pb.AttemptRef
    result: AttemptResult


@dataclass(eq=False, slots=True)
class Worker:
    """A worker, over all its streams. `held`: what it says, or was told, that it performs."""

    hello: pb.Hello
    since: Timestamp
    send: Send | None = None
    """Its stream; None while it has none."""
    capacity: int = 0
    held: dict[Key, pb.AttemptRef] = field(default_factory=dict[Key, pb.AttemptRef])
    results: dict[Key, Told] = field(default_factory=dict[Key, Told])
    """Results of attempts that nobody here awaits, or not yet."""
    declined: set[Key] = field(default_factory=set[Key])
    """What it gave back: it gets it again once it may have a place."""
    is_process: bool = False
    """It is another process, on behalf of the workers that are connected there."""
    silence: Timer | None = None

    @property
    def name(self) -> str:
        """Its name, unique in its pool."""
        return self.hello.worker

    @property
    def pool(self) -> str:
        """The pool that it serves."""
        return self.hello.pool

    def tell(self, response: pb.WorkResponse) -> None:
        """Send it; lost while the worker has no stream."""
        if self.send is not None:
            self.send(response)

    def stop(self, ref: pb.AttemptRef, reason: str) -> None:
        """Ask it to stop the attempt."""
        self.tell(pb.WorkResponse(cancel=pb.Cancel(ref=ref, reason=reason)))

    def send_away(self, reason: str) -> None:
        """Ask it to open another stream, here or elsewhere."""
        self.tell(pb.WorkResponse(leaving=pb.Leaving(reason=reason)))


Workers = dict[tuple[str, str], Worker]
"""Those that are connected, or may come back within their lease, by pool and name."""
