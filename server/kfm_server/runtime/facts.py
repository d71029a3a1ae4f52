"""What may arrive in a session's mailbox."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import orjson
from kfm.catalogue.errors import ERROR_CLASSES, IdempotencyConflict, KfmError
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api

from kfm_server.context import ExecutionContext
from kfm_server.ports.journal import Claim
from kfm_server.ports.steps import Attempt
from kfm_server.turns.state import Turn


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a request came to."""

    turn_id: str
    session_id: str
    state: api.TurnState = api.TURN_STATE_UNSPECIFIED

    def encode(self) -> bytes:
        """As it is kept with the idempotency key."""
        return orjson.dumps([self.turn_id, self.session_id, int(self.state)])

    @staticmethod
    def decode(text: bytes) -> "Accepted":
        """The reverse of `encode`."""
        return Accepted(*orjson.loads(text))


Reply = asyncio.Future[Accepted]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A message for the session."""

    context: ExecutionContext
    turn_id: str
    request: ev.TurnEvent
    claim: Claim
    parent: Turn | None = None
    reply: Reply | None = None
    inbox_id: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A control of one of its turns."""

    turn_id: str
    asked: ev.TurnControlEvent
    claim: Claim
    reply: Reply | None = None
    inbox_id: int = 0


Request = Submitted | Asked


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that this process ran has ended."""

    turn_id: str
    attempt: int
    result: ev.StepResultEvent
    recorded: Callable[[bool], None] | None = None
    """Called once it is durable (True), or was refused as late (False)."""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A TRANSACTIONAL attempt lost its database before it could commit: it was rolled back."""

    turn_id: str
    step_key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The worker of an attempt is gone, and how far it came is not known; by `gone_us` it has surely ended."""

    turn_id: str
    step_key: str
    attempt: int
    gone_us: int


@dataclass(frozen=True, slots=True)
class Ticked:
    """A timer of the session went off."""


@dataclass(frozen=True, slots=True)
class Due:
    """A TRANSACTIONAL attempt was dispatched: its turn comes, for the lane runs it itself."""

    attempt: Attempt


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine failed at a request from the inbox: it is refused for that, unless it was committed."""

    request: Request


@dataclass(frozen=True, slots=True)
class Reload:
    """The engine failed at the session."""


@dataclass(frozen=True, slots=True)
class TakenOver:
    """This process became the owner. `clean`: the owner before is known to be dead."""

    clean: bool


Fact = Request | Ended | Interrupted | Lost | Ticked | Due | Refused | Reload | TakenOver


def settle_claim(request: Request, stored: Claim) -> None:
    """Answer a request whose key was used before: the stored outcome, or a conflict."""
    if request.reply is None or request.reply.done():
        return
    try:
        request.reply.set_result(outcome_of(request.claim, stored))
    except KfmError as error:
        request.reply.set_exception(error)


def outcome_of(mine: Claim, stored: Claim) -> Accepted:
    """What a used key came to. Raises IdempotencyConflict for another body."""
    if mine.digest != stored.digest:
        raise IdempotencyConflict(metadata={"idempotency_key": mine.key, "rpc": mine.rpc})
    return Accepted.decode(stored.outcome)


def refusal_key(claim: Claim, inbox_id: int) -> tuple[str, str, str, str]:
    """Where the refusal of a request from the inbox is kept: by the request, for its key may fare better another time."""
    return claim.tenant_id, claim.principal, "inbox", str(inbox_id)


def refusal(claim: Claim, inbox_id: int, refused: KfmError) -> Claim:
    """The refusal of a request from the inbox, for whoever accepted it."""
    # The first element stands where other outcomes name their turn.
    outcome = ["", refused.reason, refused.message, refused.metadata, refused.retry_after_ms]
    return Claim(*refusal_key(claim, inbox_id), claim.digest, orjson.dumps(outcome))


def refused_as(stored: Claim) -> KfmError:
    """The error that `refusal` kept."""
    _, reason, message, metadata, retry_after_ms = orjson.loads(stored.outcome)
    return ERROR_CLASSES[reason](message, metadata=metadata, retry_after_ms=retry_after_ms)


def fail(reply: Reply | None, error: Exception) -> None:
    """Tell whoever still waits for the reply."""
    if reply is not None and not reply.done():
        reply.set_exception(error)


def fail_all(facts: Iterable[Fact], error: Exception) -> None:
    """Tell whoever made the requests among them."""
    for fact in facts:
        if isinstance(fact, Submitted | Asked):
            fail(fact.reply, error)


def tell_performer(fact: Fact, *, recorded: bool) -> None:
    """Whoever performed an attempt hears, once, what became of its result."""
    if isinstance(fact, Ended) and fact.recorded is not None:
        fact.recorded(recorded)
