"""The seam of tools: what a tool says of itself, and how it is called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kfm.type.v1 import type_pb2 as types

from kfm_server.models import Personality


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What a tool promises.

    name: [a-z][a-z0-9_]*; input_schema: JSON Schema 2020-12 of its arguments, an object;
    effect: its contract; compensation: the tool that undoes it, called with {"arguments", "key"} of
    the attempt to undo, for COMPENSATABLE ones;
    quick: a PURE tool that ends within milliseconds and cannot harm the process: it may run before anything of its
    step is durable, so that its result needs no commit of its own. Others start once their dispatch is durable.
    reserved: only for personalities that name it: `*` does not stand for it, nor do plans of others have it.
    """

    name: str
    description: str
    input_schema: Mapping[str, Any]
    effect: types.EffectContract
    compensation: str = ""
    quick: bool = False
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What a tool may know of its call.

    key: the same for every attempt of the step, unique to it; attempt and epoch: a fencing token, growing;
    tenant_id, principal: on whose behalf; progress: tells watchers how far it is;
    connection: the engine's transaction, for TRANSACTIONAL tools only: no commit, no engine tables;
    personality: the one that the turn keeps, None where it keeps none.
    """

    key: str
    attempt: int
    epoch: int
    tenant_id: str
    principal: str
    progress: Callable[[str], None]
    connection: Any = None
    personality: Personality | None = None


class ToolError(Exception):
    """A tool's own failure, told to the user as it stands. `retryable`: another attempt may succeed.

    unsure: whether the call had its effect is not known, as after a connection that broke. The effect contract says
    what follows: a call that may be repeated has failed, of another one the outcome is unknown until somebody settles it.
    """

    def __init__(self, message: str, *, retryable: bool = False, unsure: bool = False) -> None:
        super().__init__(message)
        self.retryable = retryable
        self.unsure = unsure


class Tool(Protocol):
    """A tool. Calls may run concurrently; arguments have passed the schema; cancellation must not be swallowed.

    Once a call has ended, also by cancellation, nothing of it may go on: the engine undoes or repeats it from then on.
    A thread outlives the cancelled task that awaits it: a tool that uses one waits for its end before it lets the
    cancellation out. What has not ended two seconds after its cancellation counts as running, until its deadline.
    """

    @property
    def spec(self) -> ToolSpec:
        """What it promises."""
        ...

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Do it and return a JSON value; its strings are kept without control characters other than newline and tab.

        Raises ToolError.
        """
        ...


class PackTools(Protocol):
    """Finds the tools that packs bring, of any version that a running turn keeps."""

    def tool(self, personality: Personality, name: str) -> Tool | None:
        """The tool of this name, as it stands in the personality's pack; None if the pack is not known here."""
        ...
