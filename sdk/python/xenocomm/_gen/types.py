"""What the SDK shows: frozen values, read from strictly parsed protobuf messages. Generated; never edited.

Enums are IntEnums; a number that this release does not know stays an int. Times are in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as _field
from datetime import datetime, timedelta, timezone
from enum import IntEnum
from typing import Any

from google.protobuf.message import DecodeError

from xenocomm._gen.errors import EventUndecodable, InvalidArgument
from xenocomm._gen.pool import pb

SCHEMA_RELEASE = "1.4.0"

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _dt(m: Any) -> datetime:
    return _EPOCH + timedelta(seconds=m.seconds, microseconds=m.nanos // 1000)


def _pb_dt(value: datetime) -> Any:
    since = value - _EPOCH
    return pb("google.protobuf.Timestamp")(
        seconds=since.days * 86400 + since.seconds, nanos=since.microseconds * 1000
    )


def _td(m: Any) -> timedelta:
    return timedelta(seconds=m.seconds, microseconds=int(m.nanos / 1000))


def _pb_td(value: timedelta) -> Any:
    micros = (value.days * 86400 + value.seconds) * 1_000_000 + value.microseconds
    sign = -1 if micros < 0 else 1
    seconds, rest = divmod(abs(micros), 1_000_000)
    return pb("google.protobuf.Duration")(seconds=sign * seconds, nanos=sign * rest * 1000)


@dataclass(frozen=True, slots=True)
class Payload:
    """What an envelope carries: its URL, its bytes, and the event, or None if the type is not known."""

    type_url: str = ""
    value: bytes = b""
    message: Event | None = None

    @classmethod
    def _from_pb(cls, m: Any) -> Payload:
        kind = _BY_URL.get(m.type_url)
        if kind is None:
            return cls(m.type_url, m.value)
        try:
            parsed = pb(m.type_url.rpartition("/")[2]).FromString(m.value)
        except DecodeError:
            raise EventUndecodable(metadata={"url": m.type_url}) from None
        return cls(m.type_url, m.value, kind.from_pb(parsed))

    def _to_pb(self) -> Any:
        return pb("google.protobuf.Any")(type_url=self.type_url, value=self.value)


__all__ = [
    "Ack",
    "AnswerStepResponse",
    "AttemptRef",
    "AuditEvent",
    "Breaker",
    "BusyMode",
    "CLASSES",
    "Cancel",
    "CancelTurnResponse",
    "Capacity",
    "Collection",
    "ConfigChangedEvent",
    "ConfigValue",
    "DeadLetter",
    "DeadLetterEvent",
    "Decline",
    "Document",
    "DocumentChange",
    "DropCollectionResponse",
    "DropDeadLetterResponse",
    "EVENTS",
    "EffectContract",
    "EmbedResponse",
    "Envelope",
    "EraseUserResponse",
    "Error",
    "Event",
    "ExplainTurnResponse",
    "ExportUserResponse",
    "Fact",
    "FactKind",
    "FailedCall",
    "Finish",
    "ForgetResponse",
    "ForkTurnResponse",
    "Gap",
    "GenerateResponse",
    "GetConfigResponse",
    "GetDeadLetterResponse",
    "GetPersonalityResponse",
    "GetServerInfoResponse",
    "GetSessionResponse",
    "GetTurnResponse",
    "Heartbeat",
    "Hello",
    "Lease",
    "LeaseDelta",
    "LeaseResult",
    "Leaving",
    "LifecycleEvent",
    "LifecyclePhase",
    "Limits",
    "ListCollectionsResponse",
    "ListDeadLettersResponse",
    "ListDocumentsResponse",
    "ListFactsResponse",
    "ListMessagesResponse",
    "ListModelsResponse",
    "ListPacksResponse",
    "ListPersonalitiesResponse",
    "ListSessionsResponse",
    "ListTurnEventsResponse",
    "ListTurnsResponse",
    "ListWorkersResponse",
    "MemoryChangedEvent",
    "Message",
    "Model",
    "Outcome",
    "Pack",
    "PackChangedEvent",
    "Part",
    "Passage",
    "PauseTurnResponse",
    "Payload",
    "Personality",
    "PlanChange",
    "PlanEvent",
    "PlanStep",
    "Pool",
    "Prompt",
    "PromptMessage",
    "PromptRole",
    "PromptTool",
    "PutDocumentResponse",
    "RankingMode",
    "ReadStepOutputResponse",
    "Reconnect",
    "ReloadConfigResponse",
    "RememberResponse",
    "RemoveDocumentResponse",
    "ReplayDeadLetterResponse",
    "Reply",
    "ResumeTurnResponse",
    "RetryTurnResponse",
    "Role",
    "RunTurnResponse",
    "SCHEMA_RELEASE",
    "SearchKnowledgeResponse",
    "Session",
    "SettleAs",
    "SettleStepResponse",
    "Start",
    "Step",
    "StepAttempt",
    "StepDelta",
    "StepEvent",
    "StepKind",
    "StepMetrics",
    "StepResultEvent",
    "StepState",
    "StepStatus",
    "StreamGenerateResponse",
    "SubmitTurnResponse",
    "ToolDefinition",
    "ToolUse",
    "Turn",
    "TurnChange",
    "TurnControlEvent",
    "TurnEvent",
    "TurnSpec",
    "TurnState",
    "TurnStateEvent",
    "TurnUpdate",
    "TurnVerb",
    "Usage",
    "Vector",
    "Wait",
    "WaitReason",
    "WaitTurnResponse",
    "WatchEventsResponse",
    "WatchTurnResponse",
    "Welcome",
    "WorkResponse",
    "Worker",
]


class Start(IntEnum):
    """Start is where a subscription without a cursor begins."""

    UNSPECIFIED = 0
    """As START_NOW."""
    NOW = 1
    """With what is committed after it began."""
    BEGINNING = 2
    """With the first event that is kept."""


_Start: dict[int, Start] = {int(e): e for e in Start}


class LifecyclePhase(IntEnum):
    """LifecyclePhase is where a server process stands in its life."""

    UNSPECIFIED = 0
    """Not stated."""
    STARTED = 1
    """It has read its configuration and begins to open its parts."""
    READY = 2
    """It serves."""
    DRAINING = 3
    """It takes no more work and lets what runs finish."""
    STOPPED = 4
    """It has let go of all that it owned."""


_LifecyclePhase: dict[int, LifecyclePhase] = {int(e): e for e in LifecyclePhase}


class BusyMode(IntEnum):
    """BusyMode says what happens to a message that arrives while a turn of its session runs."""

    UNSPECIFIED = 0
    """Not stated: ENQUEUE."""
    ENQUEUE = 1
    """Runs after those before it."""
    REJECT = 2
    """Refused with REASON_SESSION_BUSY."""
    INTERRUPT = 3
    """Cancels the running turn; its messages stay in the session."""
    ROLLBACK = 4
    """Cancels the running turn and drops its messages."""


_BusyMode: dict[int, BusyMode] = {int(e): e for e in BusyMode}


class TurnVerb(IntEnum):
    """TurnVerb is what someone may ask of a turn."""

    UNSPECIFIED = 0
    """Not stated: refused."""
    CANCEL = 1
    """End it now."""
    PAUSE = 2
    """Start no more steps."""
    RESUME = 3
    """Go on after a pause."""
    ANSWER = 4
    """Answer a HUMAN step."""
    SETTLE = 5
    """Say how a step of unknown outcome ended."""
    RETRY = 6
    """Run it again from the failed step, as a new turn."""
    FORK = 7
    """Run it again from a step, as a new turn."""
    WAIT = 8
    """Wait; nothing else ends this state but its own deadline."""


_TurnVerb: dict[int, TurnVerb] = {int(e): e for e in TurnVerb}


class SettleAs(IntEnum):
    """SettleAs is the verdict on a step whose outcome is not known."""

    UNSPECIFIED = 0
    """Not stated: refused."""
    SUCCEEDED = 1
    """The effect happened; the output is given."""
    FAILED = 2
    """The effect did not happen; the step failed."""
    RETRY = 3
    """The effect did not happen; run the step again."""


_SettleAs: dict[int, SettleAs] = {int(e): e for e in SettleAs}


class TurnChange(IntEnum):
    """TurnChange is what happened to a turn as a whole."""

    UNSPECIFIED = 0
    """Not stated."""
    QUEUED = 1
    """It waits for turns before it in its session."""
    STARTED = 2
    """It began, with what it pins for its whole life."""
    WAITING = 3
    """It waits: why, until when, and who can end it stand beside this."""
    TIMER_FIRED = 4
    """A timer that it waited for went off."""
    FINISHED = 5
    """It ended."""


_TurnChange: dict[int, TurnChange] = {int(e): e for e in TurnChange}


class WaitReason(IntEnum):
    """WaitReason is why a turn does not go on by itself."""

    UNSPECIFIED = 0
    """It does not wait."""
    RETRY_BACKOFF = 1
    """A back-off before the next attempt."""
    HUMAN = 2
    """A person must answer a step."""
    NEEDS_REVIEW = 3
    """A step's outcome is not known: a person must settle it."""
    PAUSED = 4
    """Somebody paused it."""
    SETTLE_GRACE = 5
    """A process that may still run an effect must be known to have given up."""
    QUEUED = 6
    """Turns before it in the session."""
    STEPS = 7
    """Steps that are running."""


_WaitReason: dict[int, WaitReason] = {int(e): e for e in WaitReason}


class Outcome(IntEnum):
    """Outcome is how a turn ended."""

    UNSPECIFIED = 0
    """It has not ended."""
    SUCCEEDED = 1
    """All steps that its plan needed succeeded."""
    FAILED = 2
    """A step failed for good, or no plan could be made."""
    CANCELLED = 3
    """Someone cancelled it."""
    TIMED_OUT = 4
    """Its timeout passed."""


_Outcome: dict[int, Outcome] = {int(e): e for e in Outcome}


class PlanChange(IntEnum):
    """PlanChange is what became of a plan."""

    UNSPECIFIED = 0
    """Not stated."""
    MADE = 1
    """A first plan."""
    EXTENDED = 2
    """Steps were added."""
    REPAIRED = 3
    """Wrong steps were replaced."""
    REFUSED = 4
    """No valid plan: the error says why."""


_PlanChange: dict[int, PlanChange] = {int(e): e for e in PlanChange}


class StepStatus(IntEnum):
    """StepStatus is how an attempt ended."""

    UNSPECIFIED = 0
    """Not stated."""
    SUCCEEDED = 1
    """It has an output."""
    FAILED = 2
    """It has an error."""
    CANCELLED = 3
    """It was cancelled."""
    SKIPPED = 4
    """It was never started, by plan or because one before it failed."""
    UNKNOWN = 5
    """Whether its effect happened is not known."""


_StepStatus: dict[int, StepStatus] = {int(e): e for e in StepStatus}


class FactKind(IntEnum):
    """FactKind is what sort of thing is known of a user."""

    UNSPECIFIED = 0
    """Not stated."""
    FACT = 1
    """Something about them."""
    PREFERENCE = 2
    """How they like things."""


_FactKind: dict[int, FactKind] = {int(e): e for e in FactKind}


class RankingMode(IntEnum):
    """RankingMode is how passages are ranked."""

    UNSPECIFIED = 0
    """Hybrid."""
    HYBRID = 1
    """By likeness and by words, fused."""
    VECTOR = 2
    """By likeness of vectors."""
    KEYWORD = 3
    """By words."""


_RankingMode: dict[int, RankingMode] = {int(e): e for e in RankingMode}


class DocumentChange(IntEnum):
    """DocumentChange is what PutDocument did."""

    UNSPECIFIED = 0
    """Not stated."""
    ADDED = 1
    """It is new."""
    CHANGED = 2
    """It took the place of another version."""
    UNCHANGED = 3
    """It was there already, the same."""


_DocumentChange: dict[int, DocumentChange] = {int(e): e for e in DocumentChange}


class PromptRole(IntEnum):
    """PromptRole says who speaks."""

    UNSPECIFIED = 0
    """Not set."""
    SYSTEM = 1
    """Instructions."""
    USER = 2
    """The user."""
    ASSISTANT = 3
    """The model."""
    TOOL = 4
    """A tool's result."""


_PromptRole: dict[int, PromptRole] = {int(e): e for e in PromptRole}


class Finish(IntEnum):
    """Finish says why a reply ended."""

    UNSPECIFIED = 0
    """Not set."""
    STOP = 1
    """By itself."""
    LENGTH = 2
    """At the bound on output tokens."""
    TOOL_CALLS = 3
    """To call tools."""
    REFUSED = 4
    """The model declined."""


_Finish: dict[int, Finish] = {int(e): e for e in Finish}


class Breaker(IntEnum):
    """Breaker says whether an endpoint is asked."""

    UNSPECIFIED = 0
    """Not set."""
    CLOSED = 1
    """It is."""
    HALF_OPEN = 2
    """One call tries it."""
    OPEN = 3
    """It failed again and again, and is left alone for a while."""


_Breaker: dict[int, Breaker] = {int(e): e for e in Breaker}


class Role(IntEnum):
    """Role is who said something."""

    UNSPECIFIED = 0
    """Not known."""
    USER = 1
    """The one who submitted the turn."""
    AGENT = 2
    """The agent."""


_Role: dict[int, Role] = {int(e): e for e in Role}


class TurnState(IntEnum):
    """TurnState is where a turn stands."""

    UNSPECIFIED = 0
    """Not known."""
    QUEUED = 1
    """Waits for turns before it."""
    RUNNING = 2
    """Has steps that run or may run."""
    WAITING = 3
    """Waits for a person or a timer."""
    FINISHED = 4
    """Has ended; the outcome says how."""


_TurnState: dict[int, TurnState] = {int(e): e for e in TurnState}


class StepState(IntEnum):
    """StepState is where a step stands."""

    UNSPECIFIED = 0
    """Not known."""
    PENDING = 1
    """Waits for steps before it."""
    RUNNING = 2
    """An attempt runs."""
    BACKING_OFF = 3
    """Waits for its next attempt."""
    WAITING = 4
    """Waits for a person's answer."""
    NEEDS_REVIEW = 5
    """Its outcome is not known; a person must settle it."""
    SUCCEEDED = 6
    """Ended well."""
    FAILED = 7
    """Ended with an error."""
    CANCELLED = 8
    """Was cancelled."""
    SKIPPED = 9
    """Never ran."""


_StepState: dict[int, StepState] = {int(e): e for e in StepState}


class EffectContract(IntEnum):
    """EffectContract is what a tool promises about its effects; the engine does what it allows, and nothing else."""

    UNSPECIFIED = 0
    """Not stated: treated as AT_MOST_ONCE."""
    PURE = 1
    """No effect outside: may run any number of times."""
    IDEMPOTENT = 2
    """The other side drops a call whose key it has seen."""
    TRANSACTIONAL = 3
    """The effect commits in the engine's own database transaction, with the result."""
    AT_MOST_ONCE = 4
    """Never started twice: an unknown outcome waits for a person."""
    COMPENSATABLE = 5
    """An unknown outcome is undone by the named compensation, then tried again."""


_EffectContract: dict[int, EffectContract] = {int(e): e for e in EffectContract}


class StepKind(IntEnum):
    """StepKind is what performs a step."""

    UNSPECIFIED = 0
    """Not stated: refused in a plan."""
    MODEL = 1
    """A call of a model."""
    TOOL = 2
    """A call of a tool."""
    MEMORY = 3
    """A read or write of memory."""
    HTTP = 4
    """An HTTP request."""
    HUMAN = 5
    """A question to a person."""
    PLAN = 6
    """Planning itself."""
    OPERATOR = 7
    """An operator over other steps."""


_StepKind: dict[int, StepKind] = {int(e): e for e in StepKind}


@dataclass(frozen=True, slots=True)
class GetServerInfoResponse:
    """GetServerInfoResponse tells what the server is.

    Attributes:
        version: Version of the program.
        schema_release: Newest schema release that it speaks.
        capabilities: Names of what it can do, e.g. `planner.rules`.
    """

    version: str = ""
    schema_release: str = ""
    capabilities: tuple[str, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> GetServerInfoResponse:
        """Read it from its protobuf message."""
        return cls(
            m.version,
            m.schema_release,
            tuple(m.capabilities),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.GetServerInfoResponse")()
        m.version = self.version
        m.schema_release = self.schema_release
        m.capabilities.extend(self.capabilities)
        return m


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """DeadLetter is a message that a consumer could not take.

    Attributes:
        dead_letter_id: Id.
        group: Consumer group.
        topic: Topic that it came from.
        partition: Partition that it came from.
        offset: Offset in the partition.
        session_id: Session that is held; empty if none.
        error: What is wrong with it.
        created_at: When it was given up.
        original: The message as it arrived; only GetDeadLetter fills it.
    """

    dead_letter_id: str = ""
    group: str = ""
    topic: str = ""
    partition: int = 0
    offset: int = 0
    session_id: str = ""
    error: Error | None = None
    created_at: datetime | None = None
    original: bytes = b""

    @classmethod
    def from_pb(cls, m: Any) -> DeadLetter:
        """Read it from its protobuf message."""
        return cls(
            m.dead_letter_id,
            m.group,
            m.topic,
            m.partition,
            m.offset,
            m.session_id,
            Error.from_pb(m.error) if m.HasField("error") else None,
            _dt(m.created_at) if m.HasField("created_at") else None,
            m.original,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.DeadLetter")()
        m.dead_letter_id = self.dead_letter_id
        m.group = self.group
        m.topic = self.topic
        m.partition = self.partition
        m.offset = self.offset
        m.session_id = self.session_id
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        if self.created_at is not None:
            m.created_at.CopyFrom(_pb_dt(self.created_at))
        m.original = self.original
        return m


@dataclass(frozen=True, slots=True)
class ListDeadLettersResponse:
    """ListDeadLettersResponse is a page.

    Attributes:
        dead_letters: The rows, without their bytes.
        next_page_token: Token of the next page; empty at the end.
    """

    dead_letters: tuple[DeadLetter, ...] = ()
    next_page_token: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ListDeadLettersResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([DeadLetter.from_pb(v) for v in m.dead_letters]),
            m.next_page_token,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.ListDeadLettersResponse")()
        m.dead_letters.extend([v.to_pb() for v in self.dead_letters])
        m.next_page_token = self.next_page_token
        return m


@dataclass(frozen=True, slots=True)
class GetDeadLetterResponse:
    """GetDeadLetterResponse holds it.

    Attributes:
        dead_letter: The dead letter with its bytes.
    """

    dead_letter: DeadLetter | None = None

    @classmethod
    def from_pb(cls, m: Any) -> GetDeadLetterResponse:
        """Read it from its protobuf message."""
        return cls(
            DeadLetter.from_pb(m.dead_letter) if m.HasField("dead_letter") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.GetDeadLetterResponse")()
        if self.dead_letter is not None:
            m.dead_letter.CopyFrom(self.dead_letter.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class ReplayDeadLetterResponse:
    """ReplayDeadLetterResponse has no fields."""

    @classmethod
    def from_pb(cls, m: Any) -> ReplayDeadLetterResponse:
        """Read it from its protobuf message."""
        return cls()

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.ReplayDeadLetterResponse")()
        return m


@dataclass(frozen=True, slots=True)
class DropDeadLetterResponse:
    """DropDeadLetterResponse has no fields."""

    @classmethod
    def from_pb(cls, m: Any) -> DropDeadLetterResponse:
        """Read it from its protobuf message."""
        return cls()

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.DropDeadLetterResponse")()
        return m


@dataclass(frozen=True, slots=True)
class ConfigValue:
    """ConfigValue is one setting as it is in force.

    Attributes:
        name: Its name with dots, as `models.small.base_url`.
        value_json: Its value as JSON; a secret is shown as where it comes from, never as it is.
        source: Where it was set: `default`, `flag`, `KFM_LOG_LEVEL`, or a file and a line.
        reloads: A change takes effect without a restart.
    """

    name: str = ""
    value_json: str = ""
    source: str = ""
    reloads: bool = False

    @classmethod
    def from_pb(cls, m: Any) -> ConfigValue:
        """Read it from its protobuf message."""
        return cls(
            m.name,
            m.value_json,
            m.source,
            m.reloads,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.ConfigValue")()
        m.name = self.name
        m.value_json = self.value_json
        m.source = self.source
        m.reloads = self.reloads
        return m


@dataclass(frozen=True, slots=True)
class GetConfigResponse:
    """GetConfigResponse has the settings in force.

    Attributes:
        values: The settings, by name.
        digest: SHA-256 in hex over all of them.
        loaded_at: When they were read.
        last_error: Why the latest attempt to read them failed; empty if it did not.
    """

    values: tuple[ConfigValue, ...] = ()
    digest: str = ""
    loaded_at: datetime | None = None
    last_error: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> GetConfigResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([ConfigValue.from_pb(v) for v in m.values]),
            m.digest,
            _dt(m.loaded_at) if m.HasField("loaded_at") else None,
            m.last_error,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.GetConfigResponse")()
        m.values.extend([v.to_pb() for v in self.values])
        m.digest = self.digest
        if self.loaded_at is not None:
            m.loaded_at.CopyFrom(_pb_dt(self.loaded_at))
        m.last_error = self.last_error
        return m


@dataclass(frozen=True, slots=True)
class ReloadConfigResponse:
    """ReloadConfigResponse says what changed.

    Attributes:
        changed: Names of the settings that changed.
        need_restart: Those of them that take effect only after a restart.
        digest: Digest of what is in force now.
    """

    changed: tuple[str, ...] = ()
    need_restart: tuple[str, ...] = ()
    digest: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ReloadConfigResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple(m.changed),
            tuple(m.need_restart),
            m.digest,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.ReloadConfigResponse")()
        m.changed.extend(self.changed)
        m.need_restart.extend(self.need_restart)
        m.digest = self.digest
        return m


@dataclass(frozen=True, slots=True)
class ListWorkersResponse:
    """ListWorkersResponse tells who performs steps outside the server.

    Attributes:
        workers: Workers that are connected to this process.
        pools: Pools that have steps waiting or running here, or tools.
    """

    workers: tuple[Worker, ...] = ()
    pools: tuple[Pool, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> ListWorkersResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Worker.from_pb(v) for v in m.workers]),
            tuple([Pool.from_pb(v) for v in m.pools]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.ListWorkersResponse")()
        m.workers.extend([v.to_pb() for v in self.workers])
        m.pools.extend([v.to_pb() for v in self.pools])
        return m


@dataclass(frozen=True, slots=True)
class Worker:
    """Worker is one that is connected.

    Attributes:
        worker: Its name.
        pool: Pool that it serves.
        capacity: Attempts that it performs at one time.
        running: Attempts that it performs now.
        program: Its program and version.
        schema_release: Schema release that it was built from.
        since: Since when it is connected.
    """

    worker: str = ""
    pool: str = ""
    capacity: int = 0
    running: int = 0
    program: str = ""
    schema_release: str = ""
    since: datetime | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Worker:
        """Read it from its protobuf message."""
        return cls(
            m.worker,
            m.pool,
            m.capacity,
            m.running,
            m.program,
            m.schema_release,
            _dt(m.since) if m.HasField("since") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.Worker")()
        m.worker = self.worker
        m.pool = self.pool
        m.capacity = self.capacity
        m.running = self.running
        m.program = self.program
        m.schema_release = self.schema_release
        if self.since is not None:
            m.since.CopyFrom(_pb_dt(self.since))
        return m


@dataclass(frozen=True, slots=True)
class Pool:
    """Pool is what serves steps outside the server.

    Attributes:
        pool: Its name.
        tools: Tools that its workers have announced.
        waiting: Attempts that wait here for a worker.
        running: Attempts that workers perform for this process.
    """

    pool: str = ""
    tools: tuple[str, ...] = ()
    waiting: int = 0
    running: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> Pool:
        """Read it from its protobuf message."""
        return cls(
            m.pool,
            tuple(m.tools),
            m.waiting,
            m.running,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.admin.v1.Pool")()
        m.pool = self.pool
        m.tools.extend(self.tools)
        m.waiting = self.waiting
        m.running = self.running
        return m


@dataclass(frozen=True, slots=True)
class Envelope:
    """Envelope holds one event. It is the same on the wire, on the bus and in the journal.

    Attributes:
        event_id: Turn id and sequence, e.g. `turn_01J....17`; an `evt_` id outside a turn. A redelivery has the same id.
        type: The payload's type, e.g. `StepResultEvent.v1`. It agrees with the payload's URL, or the event is poison.
        spec_version: The schema release in which the payload's message last changed.
        timestamp: When it was decided, in microseconds, never finer.
        trace_id: Trace that the event belongs to: 32 hex digits.
        traceparent: W3C trace context of the request that began it.
        tenant_id: Owner of all that the event names.
        session_id: Session, and key of every topic.
        turn_id: Turn; empty outside a turn.
        sequence: Position in the turn, from 1, without gaps; 0 outside a turn.
        causation_id: Id of the event or request that caused this one.
        attempt: Attempt of the step that the event is about; 0 for others.
        may_ignore: A reader that does not know the type may skip it.
        payload: The event itself. Opaque to a relay, so that an old one cannot damage a new event.
    """

    event_id: str = ""
    type: str = ""
    spec_version: str = ""
    timestamp: datetime | None = None
    trace_id: str = ""
    traceparent: str = ""
    tenant_id: str = ""
    session_id: str = ""
    turn_id: str = ""
    sequence: int = 0
    causation_id: str = ""
    attempt: int = 0
    may_ignore: bool = False
    payload: Payload | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Envelope:
        """Read it from its protobuf message."""
        return cls(
            m.event_id,
            m.type,
            m.spec_version,
            _dt(m.timestamp) if m.HasField("timestamp") else None,
            m.trace_id,
            m.traceparent,
            m.tenant_id,
            m.session_id,
            m.turn_id,
            m.sequence,
            m.causation_id,
            m.attempt,
            m.may_ignore,
            Payload._from_pb(m.payload) if m.HasField("payload") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.Envelope")()
        m.event_id = self.event_id
        m.type = self.type
        m.spec_version = self.spec_version
        if self.timestamp is not None:
            m.timestamp.CopyFrom(_pb_dt(self.timestamp))
        m.trace_id = self.trace_id
        m.traceparent = self.traceparent
        m.tenant_id = self.tenant_id
        m.session_id = self.session_id
        m.turn_id = self.turn_id
        m.sequence = self.sequence
        m.causation_id = self.causation_id
        m.attempt = self.attempt
        m.may_ignore = self.may_ignore
        if self.payload is not None:
            m.payload.CopyFrom(Payload._to_pb(self.payload))
        return m

    @property
    def event(self) -> Event | None:
        """The event itself; None if this release of the SDK does not know its type."""
        return self.payload.message if self.payload is not None else None


@dataclass(frozen=True, slots=True)
class WatchEventsResponse:
    """WatchEventsResponse carries some events, or none when only the cursor moved.

    Attributes:
        events: The events.
        cursor: Where to go on after these.
    """

    events: tuple[Envelope, ...] = ()
    cursor: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> WatchEventsResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Envelope.from_pb(v) for v in m.events]),
            m.cursor,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.WatchEventsResponse")()
        m.events.extend([v.to_pb() for v in self.events])
        m.cursor = self.cursor
        return m


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """AuditEvent says who did what to what, and why it was allowed. A consumer derives it; the hot path pays nothing.

    Attributes:
        principal: Who.
        action: Did what: a verb and a noun, e.g. `turn.cancel`.
        resource: To what: an id.
        allowed: It was allowed.
        reason: Why.
        source_event_id: The event from which this was derived.
    """

    principal: str = ""
    action: str = ""
    resource: str = ""
    allowed: bool = False
    reason: str = ""
    source_event_id: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> AuditEvent:
        """Read it from its protobuf message."""
        return cls(
            m.principal,
            m.action,
            m.resource,
            m.allowed,
            m.reason,
            m.source_event_id,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.AuditEvent")()
        m.principal = self.principal
        m.action = self.action
        m.resource = self.resource
        m.allowed = self.allowed
        m.reason = self.reason
        m.source_event_id = self.source_event_id
        return m


@dataclass(frozen=True, slots=True)
class DeadLetterEvent:
    """DeadLetterEvent keeps a message that a consumer could not take.

    Attributes:
        group: Consumer group that could not take it.
        source_topic: Topic that it came from.
        source_partition: Partition that it came from.
        source_offset: Offset in the partition.
        original: The message as it arrived, byte for byte.
        error: What is wrong with it.
        deliveries: Deliveries before it was given up.
    """

    group: str = ""
    source_topic: str = ""
    source_partition: int = 0
    source_offset: int = 0
    original: bytes = b""
    error: Error | None = None
    deliveries: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> DeadLetterEvent:
        """Read it from its protobuf message."""
        return cls(
            m.group,
            m.source_topic,
            m.source_partition,
            m.source_offset,
            m.original,
            Error.from_pb(m.error) if m.HasField("error") else None,
            m.deliveries,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.DeadLetterEvent")()
        m.group = self.group
        m.source_topic = self.source_topic
        m.source_partition = self.source_partition
        m.source_offset = self.source_offset
        m.original = self.original
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        m.deliveries = self.deliveries
        return m


@dataclass(frozen=True, slots=True)
class ConfigChangedEvent:
    """ConfigChangedEvent says that a new configuration is in force.

    Attributes:
        digest: Digest of the new configuration, secrets left out.
        changed: Names of the settings that changed.
    """

    digest: str = ""
    changed: tuple[str, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> ConfigChangedEvent:
        """Read it from its protobuf message."""
        return cls(
            m.digest,
            tuple(m.changed),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.ConfigChangedEvent")()
        m.digest = self.digest
        m.changed.extend(self.changed)
        return m


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """LifecycleEvent says where a server process stands. Since 1.1.0.

    Attributes:
        instance: The process: an id of its own, new at every start.
        phase: Where it stands.
        version: Version of the program.
    """

    instance: str = ""
    phase: LifecyclePhase | int = LifecyclePhase(0)
    version: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> LifecycleEvent:
        """Read it from its protobuf message."""
        return cls(
            m.instance,
            _LifecyclePhase.get(m.phase, m.phase),
            m.version,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.LifecycleEvent")()
        m.instance = self.instance
        m.phase = self.phase
        m.version = self.version
        return m


@dataclass(frozen=True, slots=True)
class PackChangedEvent:
    """PackChangedEvent says that a personality pack is in force, is gone, or was refused. Since 1.4.0.

    Attributes:
        pack: The pack.
        version_before: What was in force before; empty if it is new.
        digest_before: Its digest.
        version: What is in force now; empty if it is gone.
        digest: Its digest.
        signed_by: Who signed it; empty if nobody did.
        problems: Why it was refused, with file and line; what was in force before stays.
    """

    pack: str = ""
    version_before: str = ""
    digest_before: str = ""
    version: str = ""
    digest: str = ""
    signed_by: str = ""
    problems: tuple[str, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> PackChangedEvent:
        """Read it from its protobuf message."""
        return cls(
            m.pack,
            m.version_before,
            m.digest_before,
            m.version,
            m.digest,
            m.signed_by,
            tuple(m.problems),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.PackChangedEvent")()
        m.pack = self.pack
        m.version_before = self.version_before
        m.digest_before = self.digest_before
        m.version = self.version
        m.digest = self.digest
        m.signed_by = self.signed_by
        m.problems.extend(self.problems)
        return m


@dataclass(frozen=True, slots=True)
class MemoryChangedEvent:
    """MemoryChangedEvent says that something is remembered, forgotten, or erased. Since 1.4.0.

    Attributes:
        principal: Who did it.
        action: What was done: remember, forget, put, remove, drop or erase.
        resource: With what: a user, or a collection and a document.
        counts: How many of each sort.
    """

    principal: str = ""
    action: str = ""
    resource: str = ""
    counts: Mapping[str, int] = _field(default_factory=dict)

    @classmethod
    def from_pb(cls, m: Any) -> MemoryChangedEvent:
        """Read it from its protobuf message."""
        return cls(
            m.principal,
            m.action,
            m.resource,
            dict(m.counts),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.MemoryChangedEvent")()
        m.principal = self.principal
        m.action = self.action
        m.resource = self.resource
        m.counts.update(self.counts)
        return m


@dataclass(frozen=True, slots=True)
class TurnEvent:
    """TurnEvent says that a turn was submitted.

    Attributes:
        principal: Who submitted it.
        personality: Personality that was asked for: `name` or `name@version`.
        input: The user's message.
        on_busy: What to do if the session is busy.
        timeout: Time that the whole turn may take.
        limits: Bounds, already filled with defaults.
        labels: The client's own labels.
        parent_turn_id: Turn that this one was forked from.
        fork_step_key: Step of the parent from which this one goes on; earlier results are taken over.
        root_turn_id: Turn whose id stands in the keys handed to tools; a retry keeps its root's.
        policy_reference: Policy that was asked before it ran; empty is the default one. Since 1.1.0.
        output_schema_json: JSON Schema 2020-12 that the answer's data must fit; empty: any answer will do.
    """

    principal: str = ""
    personality: str = ""
    input: tuple[Part, ...] = ()
    on_busy: BusyMode | int = BusyMode(0)
    timeout: timedelta | None = None
    limits: Limits | None = None
    labels: Mapping[str, str] = _field(default_factory=dict)
    parent_turn_id: str = ""
    fork_step_key: str = ""
    root_turn_id: str = ""
    policy_reference: str = ""
    output_schema_json: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> TurnEvent:
        """Read it from its protobuf message."""
        return cls(
            m.principal,
            m.personality,
            tuple([Part.from_pb(v) for v in m.input]),
            _BusyMode.get(m.on_busy, m.on_busy),
            _td(m.timeout) if m.HasField("timeout") else None,
            Limits.from_pb(m.limits) if m.HasField("limits") else None,
            dict(m.labels),
            m.parent_turn_id,
            m.fork_step_key,
            m.root_turn_id,
            m.policy_reference,
            m.output_schema_json,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.TurnEvent")()
        m.principal = self.principal
        m.personality = self.personality
        m.input.extend([v.to_pb() for v in self.input])
        m.on_busy = self.on_busy
        if self.timeout is not None:
            m.timeout.CopyFrom(_pb_td(self.timeout))
        if self.limits is not None:
            m.limits.CopyFrom(self.limits.to_pb())
        m.labels.update(self.labels)
        m.parent_turn_id = self.parent_turn_id
        m.fork_step_key = self.fork_step_key
        m.root_turn_id = self.root_turn_id
        m.policy_reference = self.policy_reference
        m.output_schema_json = self.output_schema_json
        return m


@dataclass(frozen=True, slots=True)
class TurnControlEvent:
    """TurnControlEvent says that someone asked something of a turn.

    Attributes:
        principal: Who asked.
        verb: What was asked.
        reason: Why, in the asker's words.
        step_key: Step that an answer or a settlement is for.
        settle_as: The verdict, for SETTLE.
        output_json: The answer, or the settled step's output, as JSON.
    """

    principal: str = ""
    verb: TurnVerb | int = TurnVerb(0)
    reason: str = ""
    step_key: str = ""
    settle_as: SettleAs | int = SettleAs(0)
    output_json: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> TurnControlEvent:
        """Read it from its protobuf message."""
        return cls(
            m.principal,
            _TurnVerb.get(m.verb, m.verb),
            m.reason,
            m.step_key,
            _SettleAs.get(m.settle_as, m.settle_as),
            m.output_json,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.TurnControlEvent")()
        m.principal = self.principal
        m.verb = self.verb
        m.reason = self.reason
        m.step_key = self.step_key
        m.settle_as = self.settle_as
        m.output_json = self.output_json
        return m


@dataclass(frozen=True, slots=True)
class TurnStateEvent:
    """TurnStateEvent says what happened to a turn as a whole.

    Attributes:
        change: What happened.
        personality_digest: Personality and its digest, pinned at the start.
        schema_release: Schema release pinned at the start.
        tools_digest: Digest of the tool catalogue pinned at the start.
        wait_reason: Why it waits.
        wake_at: When the wait ends by itself; unset if only a verb or a result ends it.
        step_key: Step that it waits for, or whose timer fired.
        ended_by: The verb that ends the wait.
        outcome: How it ended.
        output: What it answers.
        usage: Sum over live calls.
        error: Why it ended otherwise than well.
        deadline: When the whole turn times out; set at the start.
        dropped: Its messages are dropped from the session (ROLLBACK).
        effects_done: Keys of steps whose effects stand although the turn did not succeed.
        personality_json: The personality as the turn began with it, as JSON: what its model steps are made from.
    """

    change: TurnChange | int = TurnChange(0)
    personality_digest: str = ""
    schema_release: str = ""
    tools_digest: str = ""
    wait_reason: WaitReason | int = WaitReason(0)
    wake_at: datetime | None = None
    step_key: str = ""
    ended_by: TurnVerb | int = TurnVerb(0)
    outcome: Outcome | int = Outcome(0)
    output: tuple[Part, ...] = ()
    usage: Usage | None = None
    error: Error | None = None
    deadline: datetime | None = None
    dropped: bool = False
    effects_done: tuple[str, ...] = ()
    personality_json: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> TurnStateEvent:
        """Read it from its protobuf message."""
        return cls(
            _TurnChange.get(m.change, m.change),
            m.personality_digest,
            m.schema_release,
            m.tools_digest,
            _WaitReason.get(m.wait_reason, m.wait_reason),
            _dt(m.wake_at) if m.HasField("wake_at") else None,
            m.step_key,
            _TurnVerb.get(m.ended_by, m.ended_by),
            _Outcome.get(m.outcome, m.outcome),
            tuple([Part.from_pb(v) for v in m.output]),
            Usage.from_pb(m.usage) if m.HasField("usage") else None,
            Error.from_pb(m.error) if m.HasField("error") else None,
            _dt(m.deadline) if m.HasField("deadline") else None,
            m.dropped,
            tuple(m.effects_done),
            m.personality_json,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.TurnStateEvent")()
        m.change = self.change
        m.personality_digest = self.personality_digest
        m.schema_release = self.schema_release
        m.tools_digest = self.tools_digest
        m.wait_reason = self.wait_reason
        if self.wake_at is not None:
            m.wake_at.CopyFrom(_pb_dt(self.wake_at))
        m.step_key = self.step_key
        m.ended_by = self.ended_by
        m.outcome = self.outcome
        m.output.extend([v.to_pb() for v in self.output])
        if self.usage is not None:
            m.usage.CopyFrom(self.usage.to_pb())
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        if self.deadline is not None:
            m.deadline.CopyFrom(_pb_dt(self.deadline))
        m.dropped = self.dropped
        m.effects_done.extend(self.effects_done)
        m.personality_json = self.personality_json
        return m


@dataclass(frozen=True, slots=True)
class PlanEvent:
    """PlanEvent says that a plan was made, extended, repaired or refused.

    Attributes:
        plan_id: Id of the plan: turn id and revision.
        change: What happened.
        planner: Planner that made it.
        model: Model that the planner used; empty for `rules`.
        complexity: Complexity of the message as the router saw it, 0 to 100.
        steps: The steps that this event adds.
        cost_bound_nanos: Most that the plan may cost, in 10^-9 USD.
        error: Why it was refused.
    """

    plan_id: str = ""
    change: PlanChange | int = PlanChange(0)
    planner: str = ""
    model: str = ""
    complexity: int = 0
    steps: tuple[PlanStep, ...] = ()
    cost_bound_nanos: int = 0
    error: Error | None = None

    @classmethod
    def from_pb(cls, m: Any) -> PlanEvent:
        """Read it from its protobuf message."""
        return cls(
            m.plan_id,
            _PlanChange.get(m.change, m.change),
            m.planner,
            m.model,
            m.complexity,
            tuple([PlanStep.from_pb(v) for v in m.steps]),
            m.cost_bound_nanos,
            Error.from_pb(m.error) if m.HasField("error") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.PlanEvent")()
        m.plan_id = self.plan_id
        m.change = self.change
        m.planner = self.planner
        m.model = self.model
        m.complexity = self.complexity
        m.steps.extend([v.to_pb() for v in self.steps])
        m.cost_bound_nanos = self.cost_bound_nanos
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class StepEvent:
    """StepEvent says that an attempt of a step was dispatched. It is durable before an effect starts.

    Attributes:
        plan_id: Plan that holds the step.
        step_id: Turn id and step key.
        step_key: The step's key.
        step_index: Position in the plan, from 0.
        step_type: What performs it.
        tool: Tool, for TOOL steps.
        instructions: What it is for, in words.
        parameters_json: Arguments with all references resolved, as a JSON object.
        contract: Contract under which it runs.
        key: Key for the other side: root turn id and step key, the same for every attempt.
        start_by: A process that has not started it by now must not start it.
        deadline: When the attempt is given up.
        pool: Pool that runs it.
        rerun: It runs again because a process died: not counted as a retry.
        compensation: It undoes the attempt of unknown outcome before it.
        model: Model that it calls, by its configured name.
        max_tokens: Tokens that the call may use at most, read and written; 0 is no bound.
        max_cost_nanos: Money that the call may cost at most, in 10^-9 US dollars; 0 is no bound.
        principal: On whose behalf, for steps of a pool: a worker sees nothing else of the turn.
    """

    plan_id: str = ""
    step_id: str = ""
    step_key: str = ""
    step_index: int = 0
    step_type: StepKind | int = StepKind(0)
    tool: str = ""
    instructions: str = ""
    parameters_json: str = ""
    contract: EffectContract | int = EffectContract(0)
    key: str = ""
    start_by: datetime | None = None
    deadline: datetime | None = None
    pool: str = ""
    rerun: bool = False
    compensation: bool = False
    model: str = ""
    max_tokens: int = 0
    max_cost_nanos: int = 0
    principal: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> StepEvent:
        """Read it from its protobuf message."""
        return cls(
            m.plan_id,
            m.step_id,
            m.step_key,
            m.step_index,
            _StepKind.get(m.step_type, m.step_type),
            m.tool,
            m.instructions,
            m.parameters_json,
            _EffectContract.get(m.contract, m.contract),
            m.key,
            _dt(m.start_by) if m.HasField("start_by") else None,
            _dt(m.deadline) if m.HasField("deadline") else None,
            m.pool,
            m.rerun,
            m.compensation,
            m.model,
            m.max_tokens,
            m.max_cost_nanos,
            m.principal,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.StepEvent")()
        m.plan_id = self.plan_id
        m.step_id = self.step_id
        m.step_key = self.step_key
        m.step_index = self.step_index
        m.step_type = self.step_type
        m.tool = self.tool
        m.instructions = self.instructions
        m.parameters_json = self.parameters_json
        m.contract = self.contract
        m.key = self.key
        if self.start_by is not None:
            m.start_by.CopyFrom(_pb_dt(self.start_by))
        if self.deadline is not None:
            m.deadline.CopyFrom(_pb_dt(self.deadline))
        m.pool = self.pool
        m.rerun = self.rerun
        m.compensation = self.compensation
        m.model = self.model
        m.max_tokens = self.max_tokens
        m.max_cost_nanos = self.max_cost_nanos
        m.principal = self.principal
        return m


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """StepMetrics are what an attempt took.

    Attributes:
        run_time: Start to end.
        usage: What it consumed.
        model: Model that answered, as its provider names it.
        provider_request_id: The provider's id of the call.
        prompt_digest: SHA-256 in hex of what was sent to the model: a replay can tell whether it would send the same.
    """

    run_time: timedelta | None = None
    usage: Usage | None = None
    model: str = ""
    provider_request_id: str = ""
    prompt_digest: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> StepMetrics:
        """Read it from its protobuf message."""
        return cls(
            _td(m.run_time) if m.HasField("run_time") else None,
            Usage.from_pb(m.usage) if m.HasField("usage") else None,
            m.model,
            m.provider_request_id,
            m.prompt_digest,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.StepMetrics")()
        if self.run_time is not None:
            m.run_time.CopyFrom(_pb_td(self.run_time))
        if self.usage is not None:
            m.usage.CopyFrom(self.usage.to_pb())
        m.model = self.model
        m.provider_request_id = self.provider_request_id
        m.prompt_digest = self.prompt_digest
        return m


@dataclass(frozen=True, slots=True)
class StepResultEvent:
    """StepResultEvent says that an attempt ended. Whether another follows is the next decision's business.

    Attributes:
        step_key: The step's key.
        status: How the attempt ended.
        output_json: Its output as JSON; empty if it has none.
        output_blob: Digest of the output in the blob store, when it is too large to stand here.
        error: Why it did not succeed.
        metrics: What it took.
        compensation: It ended a compensation, not the step itself.
        synthesised: The engine wrote it in place of an attempt that can no longer answer.
        worker: The worker that performed it; empty if it ran in the server.
        output_bytes: Size of the output in bytes of UTF-8, when it stands in the blob store; else 0.
        output_head: The output's beginning, at most 1,024 characters, when it stands in the blob store. It is cut, so it is no JSON.
    """

    step_key: str = ""
    status: StepStatus | int = StepStatus(0)
    output_json: str = ""
    output_blob: str = ""
    error: Error | None = None
    metrics: StepMetrics | None = None
    compensation: bool = False
    synthesised: bool = False
    worker: str = ""
    output_bytes: int = 0
    output_head: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> StepResultEvent:
        """Read it from its protobuf message."""
        return cls(
            m.step_key,
            _StepStatus.get(m.status, m.status),
            m.output_json,
            m.output_blob,
            Error.from_pb(m.error) if m.HasField("error") else None,
            StepMetrics.from_pb(m.metrics) if m.HasField("metrics") else None,
            m.compensation,
            m.synthesised,
            m.worker,
            m.output_bytes,
            m.output_head,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.event.v1.StepResultEvent")()
        m.step_key = self.step_key
        m.status = self.status
        m.output_json = self.output_json
        m.output_blob = self.output_blob
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        if self.metrics is not None:
            m.metrics.CopyFrom(self.metrics.to_pb())
        m.compensation = self.compensation
        m.synthesised = self.synthesised
        m.worker = self.worker
        m.output_bytes = self.output_bytes
        m.output_head = self.output_head
        return m


@dataclass(frozen=True, slots=True)
class Fact:
    """Fact is something known of a user.

    Attributes:
        kind: What sort.
        key: Its name.
        value: What is known.
        source: What it was learned from.
        created_at: When it was first kept.
        updated_at: When it was last changed.
    """

    kind: FactKind | int = FactKind(0)
    key: str = ""
    value: str = ""
    source: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Fact:
        """Read it from its protobuf message."""
        return cls(
            _FactKind.get(m.kind, m.kind),
            m.key,
            m.value,
            m.source,
            _dt(m.created_at) if m.HasField("created_at") else None,
            _dt(m.updated_at) if m.HasField("updated_at") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.Fact")()
        m.kind = self.kind
        m.key = self.key
        m.value = self.value
        m.source = self.source
        if self.created_at is not None:
            m.created_at.CopyFrom(_pb_dt(self.created_at))
        if self.updated_at is not None:
            m.updated_at.CopyFrom(_pb_dt(self.updated_at))
        return m


@dataclass(frozen=True, slots=True)
class Collection:
    """Collection is a set of documents that are searched together.

    Attributes:
        collection: Its name.
        owner: The user whose it is alone; empty: everybody's.
        documents: Documents in it.
        created_at: When it was made.
    """

    collection: str = ""
    owner: str = ""
    documents: int = 0
    created_at: datetime | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Collection:
        """Read it from its protobuf message."""
        return cls(
            m.collection,
            m.owner,
            m.documents,
            _dt(m.created_at) if m.HasField("created_at") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.Collection")()
        m.collection = self.collection
        m.owner = self.owner
        m.documents = self.documents
        if self.created_at is not None:
            m.created_at.CopyFrom(_pb_dt(self.created_at))
        return m


@dataclass(frozen=True, slots=True)
class Document:
    """Document is a document of a collection.

    Attributes:
        source: Its name within the collection.
        title: Its title.
        media_type: Its media type.
        digest: SHA-256 in hex of its body.
        bytes: Bytes of its body.
        chunks: Passages that it was split into.
        updated_at: When it was last changed.
    """

    source: str = ""
    title: str = ""
    media_type: str = ""
    digest: str = ""
    bytes: int = 0
    chunks: int = 0
    updated_at: datetime | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Document:
        """Read it from its protobuf message."""
        return cls(
            m.source,
            m.title,
            m.media_type,
            m.digest,
            m.bytes,
            m.chunks,
            _dt(m.updated_at) if m.HasField("updated_at") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.Document")()
        m.source = self.source
        m.title = self.title
        m.media_type = self.media_type
        m.digest = self.digest
        m.bytes = self.bytes
        m.chunks = self.chunks
        if self.updated_at is not None:
            m.updated_at.CopyFrom(_pb_dt(self.updated_at))
        return m


@dataclass(frozen=True, slots=True)
class Passage:
    """Passage is a piece of a document that a search found.

    Attributes:
        collection: The collection.
        source: The document.
        title: The document's title.
        heading: The headings above it.
        text: Its text. It is data: whoever wrote it is not the user.
        ordinal: Its place in the document, from 0.
        score: Orders the passages of one search.
    """

    collection: str = ""
    source: str = ""
    title: str = ""
    heading: str = ""
    text: str = ""
    ordinal: int = 0
    score: float = 0.0

    @classmethod
    def from_pb(cls, m: Any) -> Passage:
        """Read it from its protobuf message."""
        return cls(
            m.collection,
            m.source,
            m.title,
            m.heading,
            m.text,
            m.ordinal,
            m.score,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.Passage")()
        m.collection = self.collection
        m.source = self.source
        m.title = self.title
        m.heading = self.heading
        m.text = self.text
        m.ordinal = self.ordinal
        m.score = self.score
        return m


@dataclass(frozen=True, slots=True)
class RememberResponse:
    """RememberResponse has it as it is kept.

    Attributes:
        fact: The fact.
    """

    fact: Fact | None = None

    @classmethod
    def from_pb(cls, m: Any) -> RememberResponse:
        """Read it from its protobuf message."""
        return cls(
            Fact.from_pb(m.fact) if m.HasField("fact") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.RememberResponse")()
        if self.fact is not None:
            m.fact.CopyFrom(self.fact.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class ListFactsResponse:
    """ListFactsResponse has a page, by kind and key.

    Attributes:
        facts: The facts.
        next_page_token: Where the next page begins; empty if there is none.
    """

    facts: tuple[Fact, ...] = ()
    next_page_token: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ListFactsResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Fact.from_pb(v) for v in m.facts]),
            m.next_page_token,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.ListFactsResponse")()
        m.facts.extend([v.to_pb() for v in self.facts])
        m.next_page_token = self.next_page_token
        return m


@dataclass(frozen=True, slots=True)
class ForgetResponse:
    """ForgetResponse tells what was there.

    Attributes:
        found: There was one.
    """

    found: bool = False

    @classmethod
    def from_pb(cls, m: Any) -> ForgetResponse:
        """Read it from its protobuf message."""
        return cls(
            m.found,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.ForgetResponse")()
        m.found = self.found
        return m


@dataclass(frozen=True, slots=True)
class PutDocumentResponse:
    """PutDocumentResponse tells what was done.

    Attributes:
        change: What was done.
        chunks: Passages that were embedded.
    """

    change: DocumentChange | int = DocumentChange(0)
    chunks: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> PutDocumentResponse:
        """Read it from its protobuf message."""
        return cls(
            _DocumentChange.get(m.change, m.change),
            m.chunks,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.PutDocumentResponse")()
        m.change = self.change
        m.chunks = self.chunks
        return m


@dataclass(frozen=True, slots=True)
class ListDocumentsResponse:
    """ListDocumentsResponse has a page, by source.

    Attributes:
        documents: The documents.
        next_page_token: Where the next page begins; empty if there is none.
    """

    documents: tuple[Document, ...] = ()
    next_page_token: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ListDocumentsResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Document.from_pb(v) for v in m.documents]),
            m.next_page_token,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.ListDocumentsResponse")()
        m.documents.extend([v.to_pb() for v in self.documents])
        m.next_page_token = self.next_page_token
        return m


@dataclass(frozen=True, slots=True)
class RemoveDocumentResponse:
    """RemoveDocumentResponse tells what was there.

    Attributes:
        found: There was one.
    """

    found: bool = False

    @classmethod
    def from_pb(cls, m: Any) -> RemoveDocumentResponse:
        """Read it from its protobuf message."""
        return cls(
            m.found,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.RemoveDocumentResponse")()
        m.found = self.found
        return m


@dataclass(frozen=True, slots=True)
class ListCollectionsResponse:
    """ListCollectionsResponse has them.

    Attributes:
        collections: The collections, by name.
    """

    collections: tuple[Collection, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> ListCollectionsResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Collection.from_pb(v) for v in m.collections]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.ListCollectionsResponse")()
        m.collections.extend([v.to_pb() for v in self.collections])
        return m


@dataclass(frozen=True, slots=True)
class DropCollectionResponse:
    """DropCollectionResponse tells what was there.

    Attributes:
        documents: Documents that it had.
    """

    documents: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> DropCollectionResponse:
        """Read it from its protobuf message."""
        return cls(
            m.documents,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.DropCollectionResponse")()
        m.documents = self.documents
        return m


@dataclass(frozen=True, slots=True)
class SearchKnowledgeResponse:
    """SearchKnowledgeResponse has them.

    Attributes:
        passages: The passages, best first.
    """

    passages: tuple[Passage, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> SearchKnowledgeResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Passage.from_pb(v) for v in m.passages]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.SearchKnowledgeResponse")()
        m.passages.extend([v.to_pb() for v in self.passages])
        return m


@dataclass(frozen=True, slots=True)
class ExportUserResponse:
    """ExportUserResponse is one thing that is kept.

    Attributes:
        kind: What sort: facts, documents or todos.
        value_json: The thing, as a JSON object.
    """

    kind: str = ""
    value_json: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ExportUserResponse:
        """Read it from its protobuf message."""
        return cls(
            m.kind,
            m.value_json,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.ExportUserResponse")()
        m.kind = self.kind
        m.value_json = self.value_json
        return m


@dataclass(frozen=True, slots=True)
class EraseUserResponse:
    """EraseUserResponse tells what was erased.

    Attributes:
        erased: How many of each sort.
    """

    erased: Mapping[str, int] = _field(default_factory=dict)

    @classmethod
    def from_pb(cls, m: Any) -> EraseUserResponse:
        """Read it from its protobuf message."""
        return cls(
            dict(m.erased),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.memory.v1.EraseUserResponse")()
        m.erased.update(self.erased)
        return m


@dataclass(frozen=True, slots=True)
class Personality:
    """Personality is one of them.

    Attributes:
        name: Name that a turn gives.
        description: What it is for.
        planner: Its planner: rules, plan, react or hybrid.
        models: The models that it may call, by their configured names, the weakest first.
        tools: The tools that it may call.
        digest: SHA-256 in hex of all that it is made of.
        is_default: It is taken where a turn names none.
    """

    name: str = ""
    description: str = ""
    planner: str = ""
    models: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    digest: str = ""
    is_default: bool = False

    @classmethod
    def from_pb(cls, m: Any) -> Personality:
        """Read it from its protobuf message."""
        return cls(
            m.name,
            m.description,
            m.planner,
            tuple(m.models),
            tuple(m.tools),
            m.digest,
            m.is_default,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.personality.v1.Personality")()
        m.name = self.name
        m.description = self.description
        m.planner = self.planner
        m.models.extend(self.models)
        m.tools.extend(self.tools)
        m.digest = self.digest
        m.is_default = self.is_default
        return m


@dataclass(frozen=True, slots=True)
class GetPersonalityResponse:
    """GetPersonalityResponse has it.

    Attributes:
        personality: The personality.
        instructions: What it is told: its system prompt, rendered.
        pack: The pack that it came from.
    """

    personality: Personality | None = None
    instructions: str = ""
    pack: Pack | None = None

    @classmethod
    def from_pb(cls, m: Any) -> GetPersonalityResponse:
        """Read it from its protobuf message."""
        return cls(
            Personality.from_pb(m.personality) if m.HasField("personality") else None,
            m.instructions,
            Pack.from_pb(m.pack) if m.HasField("pack") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.personality.v1.GetPersonalityResponse")()
        if self.personality is not None:
            m.personality.CopyFrom(self.personality.to_pb())
        m.instructions = self.instructions
        if self.pack is not None:
            m.pack.CopyFrom(self.pack.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class Pack:
    """Pack is a directory of the packs' directory, as it stands on disk and as it is in force. Since 1.4.0.

    Attributes:
        name: Name of the personality that it makes; of the directory, if the manifest does not say.
        version: Version in force; empty if none is.
        digest: SHA-256 in hex over the files of the version in force.
        tools: Tools that it brings.
        skills: Skills that it brings.
        signed_by: Who signed it, by the name of the key; empty for nobody that is known.
        problems: Why it is not taken as it stands on disk now, each with file and line. What is in force is what stood there before.
    """

    name: str = ""
    version: str = ""
    digest: str = ""
    tools: tuple[str, ...] = ()
    skills: tuple[str, ...] = ()
    signed_by: str = ""
    problems: tuple[str, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> Pack:
        """Read it from its protobuf message."""
        return cls(
            m.name,
            m.version,
            m.digest,
            tuple(m.tools),
            tuple(m.skills),
            m.signed_by,
            tuple(m.problems),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.personality.v1.Pack")()
        m.name = self.name
        m.version = self.version
        m.digest = self.digest
        m.tools.extend(self.tools)
        m.skills.extend(self.skills)
        m.signed_by = self.signed_by
        m.problems.extend(self.problems)
        return m


@dataclass(frozen=True, slots=True)
class ListPacksResponse:
    """ListPacksResponse has them.

    Attributes:
        packs: The packs.
    """

    packs: tuple[Pack, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> ListPacksResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Pack.from_pb(v) for v in m.packs]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.personality.v1.ListPacksResponse")()
        m.packs.extend([v.to_pb() for v in self.packs])
        return m


@dataclass(frozen=True, slots=True)
class ListPersonalitiesResponse:
    """ListPersonalitiesResponse has them.

    Attributes:
        personalities: The personalities.
    """

    personalities: tuple[Personality, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> ListPersonalitiesResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Personality.from_pb(v) for v in m.personalities]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.personality.v1.ListPersonalitiesResponse")()
        m.personalities.extend([v.to_pb() for v in self.personalities])
        return m


@dataclass(frozen=True, slots=True)
class ToolUse:
    """ToolUse is a call of a tool that a model asks for.

    Attributes:
        id: Its id within the conversation.
        name: The tool's name.
        arguments_json: The arguments as the model wrote them: they may be no JSON.
    """

    id: str = ""
    name: str = ""
    arguments_json: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ToolUse:
        """Read it from its protobuf message."""
        return cls(
            m.id,
            m.name,
            m.arguments_json,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.ToolUse")()
        m.id = self.id
        m.name = self.name
        m.arguments_json = self.arguments_json
        return m


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """PromptMessage is one message of a conversation.

    Attributes:
        role: Who speaks.
        text: What is said.
        tool_uses: What an assistant's message calls.
        tool_use_id: Which of them a tool's message answers.
    """

    role: PromptRole | int = PromptRole(0)
    text: str = ""
    tool_uses: tuple[ToolUse, ...] = ()
    tool_use_id: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> PromptMessage:
        """Read it from its protobuf message."""
        return cls(
            _PromptRole.get(m.role, m.role),
            m.text,
            tuple([ToolUse.from_pb(v) for v in m.tool_uses]),
            m.tool_use_id,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.PromptMessage")()
        m.role = self.role
        m.text = self.text
        m.tool_uses.extend([v.to_pb() for v in self.tool_uses])
        m.tool_use_id = self.tool_use_id
        return m


@dataclass(frozen=True, slots=True)
class PromptTool:
    """PromptTool is a tool as the model is told of it. The caller performs what the model asks for.

    Attributes:
        name: Name.
        description: What it is for.
        input_schema_json: JSON Schema of its arguments, an object; empty is one of no arguments.
    """

    name: str = ""
    description: str = ""
    input_schema_json: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> PromptTool:
        """Read it from its protobuf message."""
        return cls(
            m.name,
            m.description,
            m.input_schema_json,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.PromptTool")()
        m.name = self.name
        m.description = self.description
        m.input_schema_json = self.input_schema_json
        return m


@dataclass(frozen=True, slots=True)
class Prompt:
    """Prompt is all that an answer depends on.

    Attributes:
        messages: The conversation, oldest first.
        tools: Tools that the model may ask for.
        output_schema_json: JSON Schema, an object, that the reply's text is to fit. The provider is asked for it; the caller checks.
        max_output_tokens: Most tokens of the answer; 0 is the model's own bound, which also bounds it.
        temperature: Unset is the model's own.
    """

    messages: tuple[PromptMessage, ...] = ()
    tools: tuple[PromptTool, ...] = ()
    output_schema_json: str = ""
    max_output_tokens: int = 0
    temperature: float | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Prompt:
        """Read it from its protobuf message."""
        return cls(
            tuple([PromptMessage.from_pb(v) for v in m.messages]),
            tuple([PromptTool.from_pb(v) for v in m.tools]),
            m.output_schema_json,
            m.max_output_tokens,
            m.temperature if m.HasField("temperature") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.Prompt")()
        m.messages.extend([v.to_pb() for v in self.messages])
        m.tools.extend([v.to_pb() for v in self.tools])
        m.output_schema_json = self.output_schema_json
        m.max_output_tokens = self.max_output_tokens
        if self.temperature is not None:
            m.temperature = self.temperature
        return m


@dataclass(frozen=True, slots=True)
class FailedCall:
    """FailedCall is a call that was made in vain before another model answered.

    Attributes:
        model: The configured name of the model.
        error: How it failed.
        usage: What it cost all the same; unset if nothing is known to be.
    """

    model: str = ""
    error: Error | None = None
    usage: Usage | None = None

    @classmethod
    def from_pb(cls, m: Any) -> FailedCall:
        """Read it from its protobuf message."""
        return cls(
            m.model,
            Error.from_pb(m.error) if m.HasField("error") else None,
            Usage.from_pb(m.usage) if m.HasField("usage") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.FailedCall")()
        m.model = self.model
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        if self.usage is not None:
            m.usage.CopyFrom(self.usage.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply is a whole reply.

    Attributes:
        text: What the model said.
        reasoning: What it thought, where the provider tells.
        tool_uses: The tools that it asks for.
        finish: Why it ended.
        usage: What the call used and cost.
        usage_estimated: The provider did not count: the tokens are estimated.
        model: The configured name of the model that answered.
        provider_model: The same model as its provider names it.
        provider_request_id: The provider's id of the call.
        cached: It came from memory, and cost nothing.
        failed: What was asked before it, in vain.
    """

    text: str = ""
    reasoning: str = ""
    tool_uses: tuple[ToolUse, ...] = ()
    finish: Finish | int = Finish(0)
    usage: Usage | None = None
    usage_estimated: bool = False
    model: str = ""
    provider_model: str = ""
    provider_request_id: str = ""
    cached: bool = False
    failed: tuple[FailedCall, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> Reply:
        """Read it from its protobuf message."""
        return cls(
            m.text,
            m.reasoning,
            tuple([ToolUse.from_pb(v) for v in m.tool_uses]),
            _Finish.get(m.finish, m.finish),
            Usage.from_pb(m.usage) if m.HasField("usage") else None,
            m.usage_estimated,
            m.model,
            m.provider_model,
            m.provider_request_id,
            m.cached,
            tuple([FailedCall.from_pb(v) for v in m.failed]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.Reply")()
        m.text = self.text
        m.reasoning = self.reasoning
        m.tool_uses.extend([v.to_pb() for v in self.tool_uses])
        m.finish = self.finish
        if self.usage is not None:
            m.usage.CopyFrom(self.usage.to_pb())
        m.usage_estimated = self.usage_estimated
        m.model = self.model
        m.provider_model = self.provider_model
        m.provider_request_id = self.provider_request_id
        m.cached = self.cached
        m.failed.extend([v.to_pb() for v in self.failed])
        return m


@dataclass(frozen=True, slots=True)
class GenerateResponse:
    """GenerateResponse has it.

    Attributes:
        reply: The reply.
    """

    reply: Reply | None = None

    @classmethod
    def from_pb(cls, m: Any) -> GenerateResponse:
        """Read it from its protobuf message."""
        return cls(
            Reply.from_pb(m.reply) if m.HasField("reply") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.GenerateResponse")()
        if self.reply is not None:
            m.reply.CopyFrom(self.reply.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class StreamGenerateResponse:
    """StreamGenerateResponse is a piece of it.

    Attributes:
        text: Text.
        reasoning: Thoughts.
        tool_arguments: Arguments of a tool's call.
        reply: The whole.
    """

    text: str | None = None
    reasoning: str | None = None
    tool_arguments: str | None = None
    reply: Reply | None = None

    def __post_init__(self) -> None:
        if (self.text is not None) + (self.reasoning is not None) + (self.tool_arguments is not None) + (self.reply is not None) > 1:
            raise InvalidArgument("StreamGenerateResponse takes one of text, reasoning, tool_arguments, reply")

    @classmethod
    def from_pb(cls, m: Any) -> StreamGenerateResponse:
        """Read it from its protobuf message."""
        piece = m.WhichOneof("piece")
        return cls(
            m.text if piece == "text" else None,
            m.reasoning if piece == "reasoning" else None,
            m.tool_arguments if piece == "tool_arguments" else None,
            Reply.from_pb(m.reply) if piece == "reply" else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.StreamGenerateResponse")()
        if self.text is not None:
            m.text = self.text
        if self.reasoning is not None:
            m.reasoning = self.reasoning
        if self.tool_arguments is not None:
            m.tool_arguments = self.tool_arguments
        if self.reply is not None:
            m.reply.CopyFrom(self.reply.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class Vector:
    """Vector is what a text became.

    Attributes:
        values: Its numbers.
    """

    values: tuple[float, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> Vector:
        """Read it from its protobuf message."""
        return cls(
            tuple(m.values),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.Vector")()
        m.values.extend(self.values)
        return m


@dataclass(frozen=True, slots=True)
class EmbedResponse:
    """EmbedResponse has them.

    Attributes:
        vectors: One for each text, in order.
        usage: What the call used and cost.
        provider_model: The model as its provider names it.
    """

    vectors: tuple[Vector, ...] = ()
    usage: Usage | None = None
    provider_model: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> EmbedResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Vector.from_pb(v) for v in m.vectors]),
            Usage.from_pb(m.usage) if m.HasField("usage") else None,
            m.provider_model,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.EmbedResponse")()
        m.vectors.extend([v.to_pb() for v in self.vectors])
        if self.usage is not None:
            m.usage.CopyFrom(self.usage.to_pb())
        m.provider_model = self.provider_model
        return m


@dataclass(frozen=True, slots=True)
class Model:
    """Model is a configured model.

    Attributes:
        name: Its configured name.
        provider: By which adapter it is called: openai, litellm or scripted.
        provider_model: The provider's name of it.
        context_tokens: Most tokens that it takes, the answer included.
        max_output_tokens: Most tokens that it writes.
        fallbacks: The models that are asked when its provider fails, in order.
        breaker: Whether its endpoint is asked, by this process.
        failures: Calls that failed in a row.
    """

    name: str = ""
    provider: str = ""
    provider_model: str = ""
    context_tokens: int = 0
    max_output_tokens: int = 0
    fallbacks: tuple[str, ...] = ()
    breaker: Breaker | int = Breaker(0)
    failures: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> Model:
        """Read it from its protobuf message."""
        return cls(
            m.name,
            m.provider,
            m.provider_model,
            m.context_tokens,
            m.max_output_tokens,
            tuple(m.fallbacks),
            _Breaker.get(m.breaker, m.breaker),
            m.failures,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.Model")()
        m.name = self.name
        m.provider = self.provider
        m.provider_model = self.provider_model
        m.context_tokens = self.context_tokens
        m.max_output_tokens = self.max_output_tokens
        m.fallbacks.extend(self.fallbacks)
        m.breaker = self.breaker
        m.failures = self.failures
        return m


@dataclass(frozen=True, slots=True)
class ListModelsResponse:
    """ListModelsResponse has them.

    Attributes:
        models: The models, in the order of the configuration.
    """

    models: tuple[Model, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> ListModelsResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Model.from_pb(v) for v in m.models]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.provider.v1.ListModelsResponse")()
        m.models.extend([v.to_pb() for v in self.models])
        return m


@dataclass(frozen=True, slots=True)
class Session:
    """Session is a conversation.

    Attributes:
        session_id: Id.
        turns: Turns that it holds.
        created_at: When its first turn was submitted.
        updated_at: When its latest turn was submitted.
        last_turn_id: Its latest turn.
    """

    session_id: str = ""
    turns: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    last_turn_id: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> Session:
        """Read it from its protobuf message."""
        return cls(
            m.session_id,
            m.turns,
            _dt(m.created_at) if m.HasField("created_at") else None,
            _dt(m.updated_at) if m.HasField("updated_at") else None,
            m.last_turn_id,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.session.v1.Session")()
        m.session_id = self.session_id
        m.turns = self.turns
        if self.created_at is not None:
            m.created_at.CopyFrom(_pb_dt(self.created_at))
        if self.updated_at is not None:
            m.updated_at.CopyFrom(_pb_dt(self.updated_at))
        m.last_turn_id = self.last_turn_id
        return m


@dataclass(frozen=True, slots=True)
class Message:
    """Message is one thing that was said.

    Attributes:
        turn_id: The turn that it belongs to.
        role: Who said it.
        parts: What was said; empty for the answer of a turn that did not succeed.
        said_at: When it was said.
        outcome: How the turn ended; for answers.
        error: Why it did not succeed; for answers.
    """

    turn_id: str = ""
    role: Role | int = Role(0)
    parts: tuple[Part, ...] = ()
    said_at: datetime | None = None
    outcome: Outcome | int = Outcome(0)
    error: Error | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Message:
        """Read it from its protobuf message."""
        return cls(
            m.turn_id,
            _Role.get(m.role, m.role),
            tuple([Part.from_pb(v) for v in m.parts]),
            _dt(m.said_at) if m.HasField("said_at") else None,
            _Outcome.get(m.outcome, m.outcome),
            Error.from_pb(m.error) if m.HasField("error") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.session.v1.Message")()
        m.turn_id = self.turn_id
        m.role = self.role
        m.parts.extend([v.to_pb() for v in self.parts])
        if self.said_at is not None:
            m.said_at.CopyFrom(_pb_dt(self.said_at))
        m.outcome = self.outcome
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class GetSessionResponse:
    """GetSessionResponse has it.

    Attributes:
        session: The session.
    """

    session: Session | None = None

    @classmethod
    def from_pb(cls, m: Any) -> GetSessionResponse:
        """Read it from its protobuf message."""
        return cls(
            Session.from_pb(m.session) if m.HasField("session") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.session.v1.GetSessionResponse")()
        if self.session is not None:
            m.session.CopyFrom(self.session.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class ListSessionsResponse:
    """ListSessionsResponse is one page.

    Attributes:
        sessions: The sessions.
        next_page_token: Token of the next page; empty after the last.
    """

    sessions: tuple[Session, ...] = ()
    next_page_token: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ListSessionsResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Session.from_pb(v) for v in m.sessions]),
            m.next_page_token,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.session.v1.ListSessionsResponse")()
        m.sessions.extend([v.to_pb() for v in self.sessions])
        m.next_page_token = self.next_page_token
        return m


@dataclass(frozen=True, slots=True)
class ListMessagesResponse:
    """ListMessagesResponse is one page.

    Attributes:
        messages: The messages.
        next_page_token: Token of the next page; empty after the last.
    """

    messages: tuple[Message, ...] = ()
    next_page_token: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ListMessagesResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Message.from_pb(v) for v in m.messages]),
            m.next_page_token,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.session.v1.ListMessagesResponse")()
        m.messages.extend([v.to_pb() for v in self.messages])
        m.next_page_token = self.next_page_token
        return m


@dataclass(frozen=True, slots=True)
class TurnSpec:
    """TurnSpec is what a client asks for.

    Attributes:
        session_id: Its session: `ses_...`; empty starts a new one.
        personality: Personality: `name` or `name@version`; empty is the default one.
        input: The message.
        on_busy: When busy: what happens if the session runs another turn.
        timeout: Time it may take, 1 ms to 30 days; unset is the server's default. It ends the turn, not the call.
        limits: Bounds on what it may use.
        labels: The client's own labels.
        output_schema_json: Schema of the answer: JSON Schema 2020-12; the answer then comes as a data part that fits it. Empty: an answer in text.
    """

    session_id: str = ""
    personality: str = ""
    input: tuple[Part, ...] = ()
    on_busy: BusyMode | int = BusyMode(0)
    timeout: timedelta | None = None
    limits: Limits | None = None
    labels: Mapping[str, str] = _field(default_factory=dict)
    output_schema_json: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> TurnSpec:
        """Read it from its protobuf message."""
        return cls(
            m.session_id,
            m.personality,
            tuple([Part.from_pb(v) for v in m.input]),
            _BusyMode.get(m.on_busy, m.on_busy),
            _td(m.timeout) if m.HasField("timeout") else None,
            Limits.from_pb(m.limits) if m.HasField("limits") else None,
            dict(m.labels),
            m.output_schema_json,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.TurnSpec")()
        m.session_id = self.session_id
        m.personality = self.personality
        m.input.extend([v.to_pb() for v in self.input])
        m.on_busy = self.on_busy
        if self.timeout is not None:
            m.timeout.CopyFrom(_pb_td(self.timeout))
        if self.limits is not None:
            m.limits.CopyFrom(self.limits.to_pb())
        m.labels.update(self.labels)
        m.output_schema_json = self.output_schema_json
        return m


@dataclass(frozen=True, slots=True)
class StepAttempt:
    """StepAttempt is one try of a step.

    Attributes:
        attempt: Number, from 1.
        dispatched_at: When it was dispatched.
        ended_at: When its result was recorded; unset while it runs.
        status: How it ended.
        error: Why it did not succeed.
        rerun: It ran again because a process died.
        compensation: It undid the attempt before it.
        usage: What it consumed; unset where it is not known.
        model: Model that answered, as its provider names it.
        provider_request_id: The provider's id of the call.
    """

    attempt: int = 0
    dispatched_at: datetime | None = None
    ended_at: datetime | None = None
    status: StepStatus | int = StepStatus(0)
    error: Error | None = None
    rerun: bool = False
    compensation: bool = False
    usage: Usage | None = None
    model: str = ""
    provider_request_id: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> StepAttempt:
        """Read it from its protobuf message."""
        return cls(
            m.attempt,
            _dt(m.dispatched_at) if m.HasField("dispatched_at") else None,
            _dt(m.ended_at) if m.HasField("ended_at") else None,
            _StepStatus.get(m.status, m.status),
            Error.from_pb(m.error) if m.HasField("error") else None,
            m.rerun,
            m.compensation,
            Usage.from_pb(m.usage) if m.HasField("usage") else None,
            m.model,
            m.provider_request_id,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.StepAttempt")()
        m.attempt = self.attempt
        if self.dispatched_at is not None:
            m.dispatched_at.CopyFrom(_pb_dt(self.dispatched_at))
        if self.ended_at is not None:
            m.ended_at.CopyFrom(_pb_dt(self.ended_at))
        m.status = self.status
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        m.rerun = self.rerun
        m.compensation = self.compensation
        if self.usage is not None:
            m.usage.CopyFrom(self.usage.to_pb())
        m.model = self.model
        m.provider_request_id = self.provider_request_id
        return m


@dataclass(frozen=True, slots=True)
class Step:
    """Step is one step of a turn with its history.

    Attributes:
        definition: What was planned.
        state: Where it stands.
        attempts: Every try.
        output_json: Output as JSON, once it ended well. Empty where output_digest is set and the outputs of the turn's steps come to over 32 MiB: ReadStepOutput gives it.
        output_digest: SHA-256 in hex of the output, when it stands in the blob store.
        output_bytes: Size of the output in bytes of UTF-8, when it stands in the blob store.
    """

    definition: PlanStep | None = None
    state: StepState | int = StepState(0)
    attempts: tuple[StepAttempt, ...] = ()
    output_json: str = ""
    output_digest: str = ""
    output_bytes: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> Step:
        """Read it from its protobuf message."""
        return cls(
            PlanStep.from_pb(m.definition) if m.HasField("definition") else None,
            _StepState.get(m.state, m.state),
            tuple([StepAttempt.from_pb(v) for v in m.attempts]),
            m.output_json,
            m.output_digest,
            m.output_bytes,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.Step")()
        if self.definition is not None:
            m.definition.CopyFrom(self.definition.to_pb())
        m.state = self.state
        m.attempts.extend([v.to_pb() for v in self.attempts])
        m.output_json = self.output_json
        m.output_digest = self.output_digest
        m.output_bytes = self.output_bytes
        return m


@dataclass(frozen=True, slots=True)
class Turn:
    """Turn is one exchange: a message, its plan, what was done and what was answered.

    Attributes:
        turn_id: Id.
        session_id: Session.
        state: Where it stands.
        outcome: How it ended.
        spec: What was asked for.
        planner: Planner that made the plan.
        steps: The plan, with the history of each step.
        output: What it answered.
        error: Why it did not succeed.
        usage: What it used.
        wait_reason: Why it waits.
        submitted_at: When it was submitted.
        finished_at: When it ended.
        deadline: When it times out.
        last_sequence: Sequence of its last event.
        parent_turn_id: Turn that it was forked from.
        effects_done: Keys of steps whose effects stand although it did not succeed.
    """

    turn_id: str = ""
    session_id: str = ""
    state: TurnState | int = TurnState(0)
    outcome: Outcome | int = Outcome(0)
    spec: TurnSpec | None = None
    planner: str = ""
    steps: tuple[Step, ...] = ()
    output: tuple[Part, ...] = ()
    error: Error | None = None
    usage: Usage | None = None
    wait_reason: WaitReason | int = WaitReason(0)
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    deadline: datetime | None = None
    last_sequence: int = 0
    parent_turn_id: str = ""
    effects_done: tuple[str, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> Turn:
        """Read it from its protobuf message."""
        return cls(
            m.turn_id,
            m.session_id,
            _TurnState.get(m.state, m.state),
            _Outcome.get(m.outcome, m.outcome),
            TurnSpec.from_pb(m.spec) if m.HasField("spec") else None,
            m.planner,
            tuple([Step.from_pb(v) for v in m.steps]),
            tuple([Part.from_pb(v) for v in m.output]),
            Error.from_pb(m.error) if m.HasField("error") else None,
            Usage.from_pb(m.usage) if m.HasField("usage") else None,
            _WaitReason.get(m.wait_reason, m.wait_reason),
            _dt(m.submitted_at) if m.HasField("submitted_at") else None,
            _dt(m.finished_at) if m.HasField("finished_at") else None,
            _dt(m.deadline) if m.HasField("deadline") else None,
            m.last_sequence,
            m.parent_turn_id,
            tuple(m.effects_done),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.Turn")()
        m.turn_id = self.turn_id
        m.session_id = self.session_id
        m.state = self.state
        m.outcome = self.outcome
        if self.spec is not None:
            m.spec.CopyFrom(self.spec.to_pb())
        m.planner = self.planner
        m.steps.extend([v.to_pb() for v in self.steps])
        m.output.extend([v.to_pb() for v in self.output])
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        if self.usage is not None:
            m.usage.CopyFrom(self.usage.to_pb())
        m.wait_reason = self.wait_reason
        if self.submitted_at is not None:
            m.submitted_at.CopyFrom(_pb_dt(self.submitted_at))
        if self.finished_at is not None:
            m.finished_at.CopyFrom(_pb_dt(self.finished_at))
        if self.deadline is not None:
            m.deadline.CopyFrom(_pb_dt(self.deadline))
        m.last_sequence = self.last_sequence
        m.parent_turn_id = self.parent_turn_id
        m.effects_done.extend(self.effects_done)
        return m


@dataclass(frozen=True, slots=True)
class StepDelta:
    """StepDelta is a piece of output of a running attempt. Deltas may be lost; the step's result has the whole.

    Attributes:
        step_key: Step.
        attempt: Attempt; a new one discards the text of the one before.
        index: Position among the deltas of the attempt, from 0.
        text: Text of the answer.
        reasoning: Text of the reasoning.
        tool_arguments: A piece of the arguments of a tool call.
        progress: How far a tool is, in words.
    """

    step_key: str = ""
    attempt: int = 0
    index: int = 0
    text: str | None = None
    reasoning: str | None = None
    tool_arguments: str | None = None
    progress: str | None = None

    def __post_init__(self) -> None:
        if (self.text is not None) + (self.reasoning is not None) + (self.tool_arguments is not None) + (self.progress is not None) > 1:
            raise InvalidArgument("StepDelta takes one of text, reasoning, tool_arguments, progress")

    @classmethod
    def from_pb(cls, m: Any) -> StepDelta:
        """Read it from its protobuf message."""
        content = m.WhichOneof("content")
        return cls(
            m.step_key,
            m.attempt,
            m.index,
            m.text if content == "text" else None,
            m.reasoning if content == "reasoning" else None,
            m.tool_arguments if content == "tool_arguments" else None,
            m.progress if content == "progress" else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.StepDelta")()
        m.step_key = self.step_key
        m.attempt = self.attempt
        m.index = self.index
        if self.text is not None:
            m.text = self.text
        if self.reasoning is not None:
            m.reasoning = self.reasoning
        if self.tool_arguments is not None:
            m.tool_arguments = self.tool_arguments
        if self.progress is not None:
            m.progress = self.progress
        return m


@dataclass(frozen=True, slots=True)
class Gap:
    """Gap says that deltas of an attempt were dropped because the reader was slow.

    Attributes:
        step_key: Step.
        attempt: Attempt.
    """

    step_key: str = ""
    attempt: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> Gap:
        """Read it from its protobuf message."""
        return cls(
            m.step_key,
            m.attempt,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.Gap")()
        m.step_key = self.step_key
        m.attempt = self.attempt
        return m


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Reconnect asks the reader to come back, to the address that it already knows.

    Attributes:
        reason: Why.
        after_sequence: Sequence from which to go on: the last one that was sent.
    """

    reason: str = ""
    after_sequence: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> Reconnect:
        """Read it from its protobuf message."""
        return cls(
            m.reason,
            m.after_sequence,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.Reconnect")()
        m.reason = self.reason
        m.after_sequence = self.after_sequence
        return m


@dataclass(frozen=True, slots=True)
class TurnUpdate:
    """TurnUpdate is one thing that a watcher is told.

    Attributes:
        event: A durable event.
        delta: A piece of output.
        gap: Deltas were dropped.
        reconnect: Come back.
        epoch: Epoch of the owner: it orders deltas; events go by sequence.
    """

    event: Envelope | None = None
    delta: StepDelta | None = None
    gap: Gap | None = None
    reconnect: Reconnect | None = None
    epoch: int = 0

    def __post_init__(self) -> None:
        if (self.event is not None) + (self.delta is not None) + (self.gap is not None) + (self.reconnect is not None) > 1:
            raise InvalidArgument("TurnUpdate takes one of event, delta, gap, reconnect")

    @classmethod
    def from_pb(cls, m: Any) -> TurnUpdate:
        """Read it from its protobuf message."""
        update = m.WhichOneof("update")
        return cls(
            Envelope.from_pb(m.event) if update == "event" else None,
            StepDelta.from_pb(m.delta) if update == "delta" else None,
            Gap.from_pb(m.gap) if update == "gap" else None,
            Reconnect.from_pb(m.reconnect) if update == "reconnect" else None,
            m.epoch,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.TurnUpdate")()
        if self.event is not None:
            m.event.CopyFrom(self.event.to_pb())
        if self.delta is not None:
            m.delta.CopyFrom(self.delta.to_pb())
        if self.gap is not None:
            m.gap.CopyFrom(self.gap.to_pb())
        if self.reconnect is not None:
            m.reconnect.CopyFrom(self.reconnect.to_pb())
        m.epoch = self.epoch
        return m


@dataclass(frozen=True, slots=True)
class SubmitTurnResponse:
    """SubmitTurnResponse names the turn.

    Attributes:
        turn_id: The turn.
        session_id: Its session.
        state: Where it stood when it was recorded.
    """

    turn_id: str = ""
    session_id: str = ""
    state: TurnState | int = TurnState(0)

    @classmethod
    def from_pb(cls, m: Any) -> SubmitTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            m.turn_id,
            m.session_id,
            _TurnState.get(m.state, m.state),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.SubmitTurnResponse")()
        m.turn_id = self.turn_id
        m.session_id = self.session_id
        m.state = self.state
        return m


@dataclass(frozen=True, slots=True)
class RunTurnResponse:
    """RunTurnResponse tells what happened; several updates when the reader is behind.

    Attributes:
        updates: The updates, in order.
    """

    updates: tuple[TurnUpdate, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> RunTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([TurnUpdate.from_pb(v) for v in m.updates]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.RunTurnResponse")()
        m.updates.extend([v.to_pb() for v in self.updates])
        return m


@dataclass(frozen=True, slots=True)
class WatchTurnResponse:
    """WatchTurnResponse tells what happened; several updates when the reader is behind.

    Attributes:
        updates: The updates, in order.
    """

    updates: tuple[TurnUpdate, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> WatchTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([TurnUpdate.from_pb(v) for v in m.updates]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.WatchTurnResponse")()
        m.updates.extend([v.to_pb() for v in self.updates])
        return m


@dataclass(frozen=True, slots=True)
class WaitTurnResponse:
    """WaitTurnResponse holds the turn.

    Attributes:
        turn: The turn as it is now.
    """

    turn: Turn | None = None

    @classmethod
    def from_pb(cls, m: Any) -> WaitTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            Turn.from_pb(m.turn) if m.HasField("turn") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.WaitTurnResponse")()
        if self.turn is not None:
            m.turn.CopyFrom(self.turn.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class GetTurnResponse:
    """GetTurnResponse holds the turn.

    Attributes:
        turn: The turn as it is now.
    """

    turn: Turn | None = None

    @classmethod
    def from_pb(cls, m: Any) -> GetTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            Turn.from_pb(m.turn) if m.HasField("turn") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.GetTurnResponse")()
        if self.turn is not None:
            m.turn.CopyFrom(self.turn.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class ListTurnsResponse:
    """ListTurnsResponse is a page of turns.

    Attributes:
        turns: Turns without their steps.
        next_page_token: Token of the next page; empty at the end.
    """

    turns: tuple[Turn, ...] = ()
    next_page_token: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ListTurnsResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Turn.from_pb(v) for v in m.turns]),
            m.next_page_token,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.ListTurnsResponse")()
        m.turns.extend([v.to_pb() for v in self.turns])
        m.next_page_token = self.next_page_token
        return m


@dataclass(frozen=True, slots=True)
class ListTurnEventsResponse:
    """ListTurnEventsResponse is a run of events.

    Attributes:
        events: The events in order.
        more: More events follow the last one.
    """

    events: tuple[Envelope, ...] = ()
    more: bool = False

    @classmethod
    def from_pb(cls, m: Any) -> ListTurnEventsResponse:
        """Read it from its protobuf message."""
        return cls(
            tuple([Envelope.from_pb(v) for v in m.events]),
            m.more,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.ListTurnEventsResponse")()
        m.events.extend([v.to_pb() for v in self.events])
        m.more = self.more
        return m


@dataclass(frozen=True, slots=True)
class CancelTurnResponse:
    """CancelTurnResponse holds the turn.

    Attributes:
        turn: The turn as it is now.
    """

    turn: Turn | None = None

    @classmethod
    def from_pb(cls, m: Any) -> CancelTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            Turn.from_pb(m.turn) if m.HasField("turn") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.CancelTurnResponse")()
        if self.turn is not None:
            m.turn.CopyFrom(self.turn.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class PauseTurnResponse:
    """PauseTurnResponse holds the turn.

    Attributes:
        turn: The turn as it is now.
    """

    turn: Turn | None = None

    @classmethod
    def from_pb(cls, m: Any) -> PauseTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            Turn.from_pb(m.turn) if m.HasField("turn") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.PauseTurnResponse")()
        if self.turn is not None:
            m.turn.CopyFrom(self.turn.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class ResumeTurnResponse:
    """ResumeTurnResponse holds the turn.

    Attributes:
        turn: The turn as it is now.
    """

    turn: Turn | None = None

    @classmethod
    def from_pb(cls, m: Any) -> ResumeTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            Turn.from_pb(m.turn) if m.HasField("turn") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.ResumeTurnResponse")()
        if self.turn is not None:
            m.turn.CopyFrom(self.turn.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class RetryTurnResponse:
    """RetryTurnResponse names the new turn.

    Attributes:
        turn_id: The new turn.
        session_id: Its session.
    """

    turn_id: str = ""
    session_id: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> RetryTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            m.turn_id,
            m.session_id,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.RetryTurnResponse")()
        m.turn_id = self.turn_id
        m.session_id = self.session_id
        return m


@dataclass(frozen=True, slots=True)
class ForkTurnResponse:
    """ForkTurnResponse names the new turn.

    Attributes:
        turn_id: The new turn.
        session_id: Its session.
    """

    turn_id: str = ""
    session_id: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ForkTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            m.turn_id,
            m.session_id,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.ForkTurnResponse")()
        m.turn_id = self.turn_id
        m.session_id = self.session_id
        return m


@dataclass(frozen=True, slots=True)
class ReadStepOutputResponse:
    """ReadStepOutputResponse is that part.

    Attributes:
        data: The part; empty at the end and beyond.
        total_bytes: Size of the whole in bytes.
        digest: SHA-256 in hex of the whole.
    """

    data: bytes = b""
    total_bytes: int = 0
    digest: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ReadStepOutputResponse:
        """Read it from its protobuf message."""
        return cls(
            m.data,
            m.total_bytes,
            m.digest,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.ReadStepOutputResponse")()
        m.data = self.data
        m.total_bytes = self.total_bytes
        m.digest = self.digest
        return m


@dataclass(frozen=True, slots=True)
class AnswerStepResponse:
    """AnswerStepResponse holds the turn.

    Attributes:
        turn: The turn as it is now.
    """

    turn: Turn | None = None

    @classmethod
    def from_pb(cls, m: Any) -> AnswerStepResponse:
        """Read it from its protobuf message."""
        return cls(
            Turn.from_pb(m.turn) if m.HasField("turn") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.AnswerStepResponse")()
        if self.turn is not None:
            m.turn.CopyFrom(self.turn.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class SettleStepResponse:
    """SettleStepResponse holds the turn.

    Attributes:
        turn: The turn as it is now.
    """

    turn: Turn | None = None

    @classmethod
    def from_pb(cls, m: Any) -> SettleStepResponse:
        """Read it from its protobuf message."""
        return cls(
            Turn.from_pb(m.turn) if m.HasField("turn") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.SettleStepResponse")()
        if self.turn is not None:
            m.turn.CopyFrom(self.turn.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class ExplainTurnResponse:
    """ExplainTurnResponse is the chain of what the turn waits for, outermost first.

    Attributes:
        state: Where it stands.
        waits: What it waits for.
    """

    state: TurnState | int = TurnState(0)
    waits: tuple[Wait, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> ExplainTurnResponse:
        """Read it from its protobuf message."""
        return cls(
            _TurnState.get(m.state, m.state),
            tuple([Wait.from_pb(v) for v in m.waits]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.ExplainTurnResponse")()
        m.state = self.state
        m.waits.extend([v.to_pb() for v in self.waits])
        return m


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait is one thing that a turn waits for.

    Attributes:
        reason: What kind of thing.
        step_key: The step, if one.
        blocking_turn_id: The turn before it, if one.
        since: Since when.
        until: Until when; unset if only a verb ends it.
        then: What happens then, in words.
        ended_by: Verbs that end it now.
    """

    reason: WaitReason | int = WaitReason(0)
    step_key: str = ""
    blocking_turn_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    then: str = ""
    ended_by: tuple[TurnVerb | int, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> Wait:
        """Read it from its protobuf message."""
        return cls(
            _WaitReason.get(m.reason, m.reason),
            m.step_key,
            m.blocking_turn_id,
            _dt(m.since) if m.HasField("since") else None,
            _dt(m.until) if m.HasField("until") else None,
            m.then,
            tuple([_TurnVerb.get(v, v) for v in m.ended_by]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.turn.v1.Wait")()
        m.reason = self.reason
        m.step_key = self.step_key
        m.blocking_turn_id = self.blocking_turn_id
        if self.since is not None:
            m.since.CopyFrom(_pb_dt(self.since))
        if self.until is not None:
            m.until.CopyFrom(_pb_dt(self.until))
        m.then = self.then
        m.ended_by.extend(self.ended_by)
        return m


@dataclass(frozen=True, slots=True)
class Part:
    """Part is one piece of a message to or from an agent.

    Attributes:
        text: Plain text.
        data_json: A JSON value in canonical form. Text, because a Struct would turn integers into doubles.
    """

    text: str | None = None
    data_json: str | None = None

    def __post_init__(self) -> None:
        if (self.text is not None) + (self.data_json is not None) > 1:
            raise InvalidArgument("Part takes one of text, data_json")

    @classmethod
    def from_pb(cls, m: Any) -> Part:
        """Read it from its protobuf message."""
        content = m.WhichOneof("content")
        return cls(
            m.text if content == "text" else None,
            m.data_json if content == "data_json" else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.type.v1.Part")()
        if self.text is not None:
            m.text = self.text
        if self.data_json is not None:
            m.data_json = self.data_json
        return m


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage counts what a live call consumed. Replay never adds to it.

    Attributes:
        input_tokens: Tokens sent to a model.
        output_tokens: Tokens received from a model.
        cost_nanos: Cost in 10^-9 USD.
        model_calls: Calls of models.
        tool_calls: Calls of tools.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0
    model_calls: int = 0
    tool_calls: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> Usage:
        """Read it from its protobuf message."""
        return cls(
            m.input_tokens,
            m.output_tokens,
            m.cost_nanos,
            m.model_calls,
            m.tool_calls,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.type.v1.Usage")()
        m.input_tokens = self.input_tokens
        m.output_tokens = self.output_tokens
        m.cost_nanos = self.cost_nanos
        m.model_calls = self.model_calls
        m.tool_calls = self.tool_calls
        return m


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits bound one turn. Zero means the server's default.

    Attributes:
        max_steps: Most steps in the plan, compensations not counted.
        max_attempts: Most attempts of one step, the first included.
        max_in_flight: Most steps of the turn that run at one time.
        step_timeout: Time that one attempt of one step may take.
        max_model_calls: Most model calls of the turn, every attempt counted.
        max_tokens: Most tokens of all its model calls, read and written. A call that could pass it is not made.
        max_cost_nanos: Most money for all its model calls, in 10^-9 US dollars. A call that could pass it is not made.
    """

    max_steps: int = 0
    max_attempts: int = 0
    max_in_flight: int = 0
    step_timeout: timedelta | None = None
    max_model_calls: int = 0
    max_tokens: int = 0
    max_cost_nanos: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> Limits:
        """Read it from its protobuf message."""
        return cls(
            m.max_steps,
            m.max_attempts,
            m.max_in_flight,
            _td(m.step_timeout) if m.HasField("step_timeout") else None,
            m.max_model_calls,
            m.max_tokens,
            m.max_cost_nanos,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.type.v1.Limits")()
        m.max_steps = self.max_steps
        m.max_attempts = self.max_attempts
        m.max_in_flight = self.max_in_flight
        if self.step_timeout is not None:
            m.step_timeout.CopyFrom(_pb_td(self.step_timeout))
        m.max_model_calls = self.max_model_calls
        m.max_tokens = self.max_tokens
        m.max_cost_nanos = self.max_cost_nanos
        return m


@dataclass(frozen=True, slots=True)
class PlanStep:
    """PlanStep is one node of a plan.

    Attributes:
        key: The step's key, unique in its turn: [a-z0-9_.-], at most 64.
        kind: What performs it.
        tool: The tool's name, for TOOL steps.
        instructions: What the step is for, in words; the question, for HUMAN steps.
        arguments_json: Arguments as a JSON object. {"$ref": "s1#/pointer"} stands for a part of an earlier step's output.
        depends_on: Keys of the steps that must have ended well before this one starts.
        effect: The contract pinned for the step when it was planned.
        timeout: Time that one attempt may take; unset means the turn's step timeout.
        compensation_tool: Tool that undoes the step, for COMPENSATABLE ones.
        pool: The worker pool that runs it; empty is `local`.
        model: The model that a model or plan step calls, by its configured name.
    """

    key: str = ""
    kind: StepKind | int = StepKind(0)
    tool: str = ""
    instructions: str = ""
    arguments_json: str = ""
    depends_on: tuple[str, ...] = ()
    effect: EffectContract | int = EffectContract(0)
    timeout: timedelta | None = None
    compensation_tool: str = ""
    pool: str = ""
    model: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> PlanStep:
        """Read it from its protobuf message."""
        return cls(
            m.key,
            _StepKind.get(m.kind, m.kind),
            m.tool,
            m.instructions,
            m.arguments_json,
            tuple(m.depends_on),
            _EffectContract.get(m.effect, m.effect),
            _td(m.timeout) if m.HasField("timeout") else None,
            m.compensation_tool,
            m.pool,
            m.model,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.type.v1.PlanStep")()
        m.key = self.key
        m.kind = self.kind
        m.tool = self.tool
        m.instructions = self.instructions
        m.arguments_json = self.arguments_json
        m.depends_on.extend(self.depends_on)
        m.effect = self.effect
        if self.timeout is not None:
            m.timeout.CopyFrom(_pb_td(self.timeout))
        m.compensation_tool = self.compensation_tool
        m.pool = self.pool
        m.model = self.model
        return m


@dataclass(frozen=True, slots=True)
class Error:
    """Error is a failure as it is kept in events. The reason is text so that a new one does not move every event.

    Attributes:
        reason: The reason's name, e.g. `REASON_STEP_TIMEOUT`.
        message: A sentence for people.
        retryable: Another attempt may succeed.
        metadata: Facts behind the message, by name.
    """

    reason: str = ""
    message: str = ""
    retryable: bool = False
    metadata: Mapping[str, str] = _field(default_factory=dict)

    @classmethod
    def from_pb(cls, m: Any) -> Error:
        """Read it from its protobuf message."""
        return cls(
            m.reason,
            m.message,
            m.retryable,
            dict(m.metadata),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.type.v1.Error")()
        m.reason = self.reason
        m.message = self.message
        m.retryable = self.retryable
        m.metadata.update(self.metadata)
        return m


@dataclass(frozen=True, slots=True)
class WorkResponse:
    """WorkResponse is what the server says.

    Attributes:
        welcome: Answers the hello.
        lease: Perform this attempt.
        cancel: Stop this attempt; its result, or that it was cancelled, is still waited for.
        ack: The result was dealt with: forget it.
        leaving: The server is leaving: open the stream again, at the address that is known, and keep what runs.
    """

    welcome: Welcome | None = None
    lease: Lease | None = None
    cancel: Cancel | None = None
    ack: Ack | None = None
    leaving: Leaving | None = None

    def __post_init__(self) -> None:
        if (self.welcome is not None) + (self.lease is not None) + (self.cancel is not None) + (self.ack is not None) + (self.leaving is not None) > 1:
            raise InvalidArgument("WorkResponse takes one of welcome, lease, cancel, ack, leaving")

    @classmethod
    def from_pb(cls, m: Any) -> WorkResponse:
        """Read it from its protobuf message."""
        message = m.WhichOneof("message")
        return cls(
            Welcome.from_pb(m.welcome) if message == "welcome" else None,
            Lease.from_pb(m.lease) if message == "lease" else None,
            Cancel.from_pb(m.cancel) if message == "cancel" else None,
            Ack.from_pb(m.ack) if message == "ack" else None,
            Leaving.from_pb(m.leaving) if message == "leaving" else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.WorkResponse")()
        if self.welcome is not None:
            m.welcome.CopyFrom(self.welcome.to_pb())
        if self.lease is not None:
            m.lease.CopyFrom(self.lease.to_pb())
        if self.cancel is not None:
            m.cancel.CopyFrom(self.cancel.to_pb())
        if self.ack is not None:
            m.ack.CopyFrom(self.ack.to_pb())
        if self.leaving is not None:
            m.leaving.CopyFrom(self.leaving.to_pb())
        return m


@dataclass(frozen=True, slots=True)
class Hello:
    """Hello tells who the worker is and what it can do.

    Attributes:
        worker: Its name, the same over all its streams: a new stream of the same worker replaces the one before.
        pool: Pool that it serves: [a-z][a-z0-9_-]*; `local` is the server itself.
        tools: Tools that it performs. What they promise is remembered when the worker has gone.
        capacity: Attempts that it performs at one time; 0 only tells its tools.
        running: Leases that it holds from a stream before this one, running or with a result to tell.
        schema_release: Schema release that it was built from.
        program: What it is, for people: program and version.
        instance: Changes with every start of its process: what the same process does not hold it never took up.
    """

    worker: str = ""
    pool: str = ""
    tools: tuple[ToolDefinition, ...] = ()
    capacity: int = 0
    running: tuple[AttemptRef, ...] = ()
    schema_release: str = ""
    program: str = ""
    instance: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> Hello:
        """Read it from its protobuf message."""
        return cls(
            m.worker,
            m.pool,
            tuple([ToolDefinition.from_pb(v) for v in m.tools]),
            m.capacity,
            tuple([AttemptRef.from_pb(v) for v in m.running]),
            m.schema_release,
            m.program,
            m.instance,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Hello")()
        m.worker = self.worker
        m.pool = self.pool
        m.tools.extend([v.to_pb() for v in self.tools])
        m.capacity = self.capacity
        m.running.extend([v.to_pb() for v in self.running])
        m.schema_release = self.schema_release
        m.program = self.program
        m.instance = self.instance
        return m


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """ToolDefinition is what a tool promises.

    Attributes:
        name: Name: [a-z][a-z0-9_]*, at most 64; unique among all tools of the server.
        description: What it does, for planners and people.
        input_schema_json: JSON Schema 2020-12 of its arguments, an object.
        effect: Its contract; TRANSACTIONAL tools run in the server only.
        compensation_tool: The tool that undoes it, for COMPENSATABLE ones.
    """

    name: str = ""
    description: str = ""
    input_schema_json: str = ""
    effect: EffectContract | int = EffectContract(0)
    compensation_tool: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> ToolDefinition:
        """Read it from its protobuf message."""
        return cls(
            m.name,
            m.description,
            m.input_schema_json,
            _EffectContract.get(m.effect, m.effect),
            m.compensation_tool,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.ToolDefinition")()
        m.name = self.name
        m.description = self.description
        m.input_schema_json = self.input_schema_json
        m.effect = self.effect
        m.compensation_tool = self.compensation_tool
        return m


@dataclass(frozen=True, slots=True)
class Welcome:
    """Welcome tells the worker what to go by.

    Attributes:
        schema_release: Newest schema release that the server speaks.
        lease: A worker that is silent for so long is taken for dead; a third of it is a good heartbeat.
        version: Version of the server's program.
        max_message_bytes: Largest message that the server takes, in bytes: a result that does not fit has to be told as a failure.
        now: The server's clock now: `start_by` is told by it, and a worker's own may be wrong.
    """

    schema_release: str = ""
    lease: timedelta | None = None
    version: str = ""
    max_message_bytes: int = 0
    now: datetime | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Welcome:
        """Read it from its protobuf message."""
        return cls(
            m.schema_release,
            _td(m.lease) if m.HasField("lease") else None,
            m.version,
            m.max_message_bytes,
            _dt(m.now) if m.HasField("now") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Welcome")()
        m.schema_release = self.schema_release
        if self.lease is not None:
            m.lease.CopyFrom(_pb_td(self.lease))
        m.version = self.version
        m.max_message_bytes = self.max_message_bytes
        if self.now is not None:
            m.now.CopyFrom(_pb_dt(self.now))
        return m


@dataclass(frozen=True, slots=True)
class AttemptRef:
    """AttemptRef names one attempt under one owner.

    Attributes:
        session_id: Session.
        turn_id: Turn.
        step_key: Step.
        attempt: Attempt.
        epoch: Epoch of the owner that dispatched it. With the attempt it is a fencing token: it only grows.
    """

    session_id: str = ""
    turn_id: str = ""
    step_key: str = ""
    attempt: int = 0
    epoch: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> AttemptRef:
        """Read it from its protobuf message."""
        return cls(
            m.session_id,
            m.turn_id,
            m.step_key,
            m.attempt,
            m.epoch,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.AttemptRef")()
        m.session_id = self.session_id
        m.turn_id = self.turn_id
        m.step_key = self.step_key
        m.attempt = self.attempt
        m.epoch = self.epoch
        return m


@dataclass(frozen=True, slots=True)
class Lease:
    """Lease asks a worker to perform one attempt of a step.

    Attributes:
        ref: Which.
        tool: The tool.
        arguments_json: Its arguments, as a JSON object.
        key: Key for the other side: the same for every attempt of the step.
        effect: Contract under which it runs.
        tenant_id: On whose behalf: tenant.
        principal: On whose behalf: principal.
        start_within: An attempt that was not started by then must not start; by the worker's own clock, counted from arrival.
        timeout: The attempt is given up so long after arrival.
        compensation: It undoes an attempt of unknown outcome.
        traceparent: W3C trace context of the attempt.
        start_by: The latest start by the server's clock, which the welcome tells; whichever comes first counts.
    """

    ref: AttemptRef | None = None
    tool: str = ""
    arguments_json: str = ""
    key: str = ""
    effect: EffectContract | int = EffectContract(0)
    tenant_id: str = ""
    principal: str = ""
    start_within: timedelta | None = None
    timeout: timedelta | None = None
    compensation: bool = False
    traceparent: str = ""
    start_by: datetime | None = None

    @classmethod
    def from_pb(cls, m: Any) -> Lease:
        """Read it from its protobuf message."""
        return cls(
            AttemptRef.from_pb(m.ref) if m.HasField("ref") else None,
            m.tool,
            m.arguments_json,
            m.key,
            _EffectContract.get(m.effect, m.effect),
            m.tenant_id,
            m.principal,
            _td(m.start_within) if m.HasField("start_within") else None,
            _td(m.timeout) if m.HasField("timeout") else None,
            m.compensation,
            m.traceparent,
            _dt(m.start_by) if m.HasField("start_by") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Lease")()
        if self.ref is not None:
            m.ref.CopyFrom(self.ref.to_pb())
        m.tool = self.tool
        m.arguments_json = self.arguments_json
        m.key = self.key
        m.effect = self.effect
        m.tenant_id = self.tenant_id
        m.principal = self.principal
        if self.start_within is not None:
            m.start_within.CopyFrom(_pb_td(self.start_within))
        if self.timeout is not None:
            m.timeout.CopyFrom(_pb_td(self.timeout))
        m.compensation = self.compensation
        m.traceparent = self.traceparent
        if self.start_by is not None:
            m.start_by.CopyFrom(_pb_dt(self.start_by))
        return m


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Heartbeat tells that the worker lives.

    Attributes:
        running: All attempts that it holds.
    """

    running: tuple[AttemptRef, ...] = ()

    @classmethod
    def from_pb(cls, m: Any) -> Heartbeat:
        """Read it from its protobuf message."""
        return cls(
            tuple([AttemptRef.from_pb(v) for v in m.running]),
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Heartbeat")()
        m.running.extend([v.to_pb() for v in self.running])
        return m


@dataclass(frozen=True, slots=True)
class LeaseDelta:
    """LeaseDelta is a piece of output.

    Attributes:
        ref: Which attempt.
        progress: How far it is, in words.
    """

    ref: AttemptRef | None = None
    progress: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> LeaseDelta:
        """Read it from its protobuf message."""
        return cls(
            AttemptRef.from_pb(m.ref) if m.HasField("ref") else None,
            m.progress,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.LeaseDelta")()
        if self.ref is not None:
            m.ref.CopyFrom(self.ref.to_pb())
        m.progress = self.progress
        return m


@dataclass(frozen=True, slots=True)
class LeaseResult:
    """LeaseResult is how an attempt ended.

    Attributes:
        ref: Which attempt.
        status: How: SUCCEEDED, FAILED, CANCELLED, or UNKNOWN if its effect may have happened.
        output_json: Its output as JSON, if it succeeded.
        error: Why it did not succeed.
        run_time: Start to end.
    """

    ref: AttemptRef | None = None
    status: StepStatus | int = StepStatus(0)
    output_json: str = ""
    error: Error | None = None
    run_time: timedelta | None = None

    @classmethod
    def from_pb(cls, m: Any) -> LeaseResult:
        """Read it from its protobuf message."""
        return cls(
            AttemptRef.from_pb(m.ref) if m.HasField("ref") else None,
            _StepStatus.get(m.status, m.status),
            m.output_json,
            Error.from_pb(m.error) if m.HasField("error") else None,
            _td(m.run_time) if m.HasField("run_time") else None,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.LeaseResult")()
        if self.ref is not None:
            m.ref.CopyFrom(self.ref.to_pb())
        m.status = self.status
        m.output_json = self.output_json
        if self.error is not None:
            m.error.CopyFrom(self.error.to_pb())
        if self.run_time is not None:
            m.run_time.CopyFrom(_pb_td(self.run_time))
        return m


@dataclass(frozen=True, slots=True)
class Decline:
    """Decline gives a lease back.

    Attributes:
        ref: Which attempt.
        reason: Why, for people.
    """

    ref: AttemptRef | None = None
    reason: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> Decline:
        """Read it from its protobuf message."""
        return cls(
            AttemptRef.from_pb(m.ref) if m.HasField("ref") else None,
            m.reason,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Decline")()
        if self.ref is not None:
            m.ref.CopyFrom(self.ref.to_pb())
        m.reason = self.reason
        return m


@dataclass(frozen=True, slots=True)
class Capacity:
    """Capacity tells how many attempts a worker performs at one time.

    Attributes:
        capacity: Attempts.
    """

    capacity: int = 0

    @classmethod
    def from_pb(cls, m: Any) -> Capacity:
        """Read it from its protobuf message."""
        return cls(
            m.capacity,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Capacity")()
        m.capacity = self.capacity
        return m


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel asks a worker to stop an attempt.

    Attributes:
        ref: Which.
        reason: Why, for people.
    """

    ref: AttemptRef | None = None
    reason: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> Cancel:
        """Read it from its protobuf message."""
        return cls(
            AttemptRef.from_pb(m.ref) if m.HasField("ref") else None,
            m.reason,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Cancel")()
        if self.ref is not None:
            m.ref.CopyFrom(self.ref.to_pb())
        m.reason = self.reason
        return m


@dataclass(frozen=True, slots=True)
class Ack:
    """Ack tells that a result was dealt with.

    Attributes:
        ref: Which attempt.
        accepted: Whether it counted. A late one, of an attempt that was given up, does not.
    """

    ref: AttemptRef | None = None
    accepted: bool = False

    @classmethod
    def from_pb(cls, m: Any) -> Ack:
        """Read it from its protobuf message."""
        return cls(
            AttemptRef.from_pb(m.ref) if m.HasField("ref") else None,
            m.accepted,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Ack")()
        if self.ref is not None:
            m.ref.CopyFrom(self.ref.to_pb())
        m.accepted = self.accepted
        return m


@dataclass(frozen=True, slots=True)
class Leaving:
    """Leaving asks the worker to come back, to the address that it already knows.

    Attributes:
        reason: Why.
    """

    reason: str = ""

    @classmethod
    def from_pb(cls, m: Any) -> Leaving:
        """Read it from its protobuf message."""
        return cls(
            m.reason,
        )

    def to_pb(self) -> Any:
        """The protobuf message, of the SDK's own pool. Fields that this release does not know are not in it."""
        m = pb("kfm.worker.v1.Leaving")()
        m.reason = self.reason
        return m


Event = AuditEvent | DeadLetterEvent | ConfigChangedEvent | LifecycleEvent | PackChangedEvent | MemoryChangedEvent | TurnEvent | TurnControlEvent | TurnStateEvent | PlanEvent | StepEvent | StepResultEvent
"""Every event of this release."""

EVENTS: dict[str, type[Event]] = {
    "AuditEvent.v1": AuditEvent,
    "DeadLetterEvent.v1": DeadLetterEvent,
    "ConfigChangedEvent.v1": ConfigChangedEvent,
    "LifecycleEvent.v1": LifecycleEvent,
    "PackChangedEvent.v1": PackChangedEvent,
    "MemoryChangedEvent.v1": MemoryChangedEvent,
    "TurnEvent.v1": TurnEvent,
    "TurnControlEvent.v1": TurnControlEvent,
    "TurnStateEvent.v1": TurnStateEvent,
    "PlanEvent.v1": PlanEvent,
    "StepEvent.v1": StepEvent,
    "StepResultEvent.v1": StepResultEvent,
}
"""Events by the envelope's type."""

_BY_URL: dict[str, type[Event]] = {
    "type.googleapis.com/kfm.event.v1.AuditEvent": AuditEvent,
    "type.googleapis.com/kfm.event.v1.DeadLetterEvent": DeadLetterEvent,
    "type.googleapis.com/kfm.event.v1.ConfigChangedEvent": ConfigChangedEvent,
    "type.googleapis.com/kfm.event.v1.LifecycleEvent": LifecycleEvent,
    "type.googleapis.com/kfm.event.v1.PackChangedEvent": PackChangedEvent,
    "type.googleapis.com/kfm.event.v1.MemoryChangedEvent": MemoryChangedEvent,
    "type.googleapis.com/kfm.event.v1.TurnEvent": TurnEvent,
    "type.googleapis.com/kfm.event.v1.TurnControlEvent": TurnControlEvent,
    "type.googleapis.com/kfm.event.v1.TurnStateEvent": TurnStateEvent,
    "type.googleapis.com/kfm.event.v1.PlanEvent": PlanEvent,
    "type.googleapis.com/kfm.event.v1.StepEvent": StepEvent,
    "type.googleapis.com/kfm.event.v1.StepResultEvent": StepResultEvent,
}

CLASSES: dict[str, type[Any]] = {
    "kfm.admin.v1.GetServerInfoResponse": GetServerInfoResponse,
    "kfm.admin.v1.DeadLetter": DeadLetter,
    "kfm.admin.v1.ListDeadLettersResponse": ListDeadLettersResponse,
    "kfm.admin.v1.GetDeadLetterResponse": GetDeadLetterResponse,
    "kfm.admin.v1.ReplayDeadLetterResponse": ReplayDeadLetterResponse,
    "kfm.admin.v1.DropDeadLetterResponse": DropDeadLetterResponse,
    "kfm.admin.v1.ConfigValue": ConfigValue,
    "kfm.admin.v1.GetConfigResponse": GetConfigResponse,
    "kfm.admin.v1.ReloadConfigResponse": ReloadConfigResponse,
    "kfm.admin.v1.ListWorkersResponse": ListWorkersResponse,
    "kfm.admin.v1.Worker": Worker,
    "kfm.admin.v1.Pool": Pool,
    "kfm.event.v1.Envelope": Envelope,
    "kfm.event.v1.WatchEventsResponse": WatchEventsResponse,
    "kfm.event.v1.AuditEvent": AuditEvent,
    "kfm.event.v1.DeadLetterEvent": DeadLetterEvent,
    "kfm.event.v1.ConfigChangedEvent": ConfigChangedEvent,
    "kfm.event.v1.LifecycleEvent": LifecycleEvent,
    "kfm.event.v1.PackChangedEvent": PackChangedEvent,
    "kfm.event.v1.MemoryChangedEvent": MemoryChangedEvent,
    "kfm.event.v1.TurnEvent": TurnEvent,
    "kfm.event.v1.TurnControlEvent": TurnControlEvent,
    "kfm.event.v1.TurnStateEvent": TurnStateEvent,
    "kfm.event.v1.PlanEvent": PlanEvent,
    "kfm.event.v1.StepEvent": StepEvent,
    "kfm.event.v1.StepMetrics": StepMetrics,
    "kfm.event.v1.StepResultEvent": StepResultEvent,
    "kfm.memory.v1.Fact": Fact,
    "kfm.memory.v1.Collection": Collection,
    "kfm.memory.v1.Document": Document,
    "kfm.memory.v1.Passage": Passage,
    "kfm.memory.v1.RememberResponse": RememberResponse,
    "kfm.memory.v1.ListFactsResponse": ListFactsResponse,
    "kfm.memory.v1.ForgetResponse": ForgetResponse,
    "kfm.memory.v1.PutDocumentResponse": PutDocumentResponse,
    "kfm.memory.v1.ListDocumentsResponse": ListDocumentsResponse,
    "kfm.memory.v1.RemoveDocumentResponse": RemoveDocumentResponse,
    "kfm.memory.v1.ListCollectionsResponse": ListCollectionsResponse,
    "kfm.memory.v1.DropCollectionResponse": DropCollectionResponse,
    "kfm.memory.v1.SearchKnowledgeResponse": SearchKnowledgeResponse,
    "kfm.memory.v1.ExportUserResponse": ExportUserResponse,
    "kfm.memory.v1.EraseUserResponse": EraseUserResponse,
    "kfm.personality.v1.Personality": Personality,
    "kfm.personality.v1.GetPersonalityResponse": GetPersonalityResponse,
    "kfm.personality.v1.Pack": Pack,
    "kfm.personality.v1.ListPacksResponse": ListPacksResponse,
    "kfm.personality.v1.ListPersonalitiesResponse": ListPersonalitiesResponse,
    "kfm.provider.v1.ToolUse": ToolUse,
    "kfm.provider.v1.PromptMessage": PromptMessage,
    "kfm.provider.v1.PromptTool": PromptTool,
    "kfm.provider.v1.Prompt": Prompt,
    "kfm.provider.v1.FailedCall": FailedCall,
    "kfm.provider.v1.Reply": Reply,
    "kfm.provider.v1.GenerateResponse": GenerateResponse,
    "kfm.provider.v1.StreamGenerateResponse": StreamGenerateResponse,
    "kfm.provider.v1.Vector": Vector,
    "kfm.provider.v1.EmbedResponse": EmbedResponse,
    "kfm.provider.v1.Model": Model,
    "kfm.provider.v1.ListModelsResponse": ListModelsResponse,
    "kfm.session.v1.Session": Session,
    "kfm.session.v1.Message": Message,
    "kfm.session.v1.GetSessionResponse": GetSessionResponse,
    "kfm.session.v1.ListSessionsResponse": ListSessionsResponse,
    "kfm.session.v1.ListMessagesResponse": ListMessagesResponse,
    "kfm.turn.v1.TurnSpec": TurnSpec,
    "kfm.turn.v1.StepAttempt": StepAttempt,
    "kfm.turn.v1.Step": Step,
    "kfm.turn.v1.Turn": Turn,
    "kfm.turn.v1.StepDelta": StepDelta,
    "kfm.turn.v1.Gap": Gap,
    "kfm.turn.v1.Reconnect": Reconnect,
    "kfm.turn.v1.TurnUpdate": TurnUpdate,
    "kfm.turn.v1.SubmitTurnResponse": SubmitTurnResponse,
    "kfm.turn.v1.RunTurnResponse": RunTurnResponse,
    "kfm.turn.v1.WatchTurnResponse": WatchTurnResponse,
    "kfm.turn.v1.WaitTurnResponse": WaitTurnResponse,
    "kfm.turn.v1.GetTurnResponse": GetTurnResponse,
    "kfm.turn.v1.ListTurnsResponse": ListTurnsResponse,
    "kfm.turn.v1.ListTurnEventsResponse": ListTurnEventsResponse,
    "kfm.turn.v1.CancelTurnResponse": CancelTurnResponse,
    "kfm.turn.v1.PauseTurnResponse": PauseTurnResponse,
    "kfm.turn.v1.ResumeTurnResponse": ResumeTurnResponse,
    "kfm.turn.v1.RetryTurnResponse": RetryTurnResponse,
    "kfm.turn.v1.ForkTurnResponse": ForkTurnResponse,
    "kfm.turn.v1.ReadStepOutputResponse": ReadStepOutputResponse,
    "kfm.turn.v1.AnswerStepResponse": AnswerStepResponse,
    "kfm.turn.v1.SettleStepResponse": SettleStepResponse,
    "kfm.turn.v1.ExplainTurnResponse": ExplainTurnResponse,
    "kfm.turn.v1.Wait": Wait,
    "kfm.type.v1.Part": Part,
    "kfm.type.v1.Usage": Usage,
    "kfm.type.v1.Limits": Limits,
    "kfm.type.v1.PlanStep": PlanStep,
    "kfm.type.v1.Error": Error,
    "kfm.worker.v1.WorkResponse": WorkResponse,
    "kfm.worker.v1.Hello": Hello,
    "kfm.worker.v1.ToolDefinition": ToolDefinition,
    "kfm.worker.v1.Welcome": Welcome,
    "kfm.worker.v1.AttemptRef": AttemptRef,
    "kfm.worker.v1.Lease": Lease,
    "kfm.worker.v1.Heartbeat": Heartbeat,
    "kfm.worker.v1.LeaseDelta": LeaseDelta,
    "kfm.worker.v1.LeaseResult": LeaseResult,
    "kfm.worker.v1.Decline": Decline,
    "kfm.worker.v1.Capacity": Capacity,
    "kfm.worker.v1.Cancel": Cancel,
    "kfm.worker.v1.Ack": Ack,
    "kfm.worker.v1.Leaving": Leaving,
}
"""Every type of this module by its message's full name."""
