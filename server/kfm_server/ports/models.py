"""The seam of models: one call of a chat or embedding model, whoever provides it.

Above: steps (they render what is sent and settle what it cost). Below: adapters of `providers/`. An adapter makes
one call and never retries: retries are the engine's. It normalises: whatever the provider's dialect, tool calls,
finish reasons, usage and failures look as they do here.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from kfm_server.canonical import canonical_parsed

STALL_SECONDS: Final = 60.0
"""Longest silence on the wire where a call names none; embedding never does."""

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "length", "tool_calls", "refused"]
"""Why a reply ended: by itself, at the bound on output tokens, to call tools, or because the model declined."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """A tool call that a model asks for. `arguments_json` is the model's text, as it came: it may be no JSON."""

    id: str
    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the conversation.

    tool_uses: what an assistant's message calls; tool_use_id: which of them a tool's message answers.
    """

    role: Role
    text: str
    tool_uses: tuple[ToolUse, ...] = ()
    tool_use_id: str = ""


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as a model is told of it. `input_schema` is a JSON Schema of an object."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


def never() -> bool:
    """No caller's time is over."""
    return False


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call.

    model: the provider's name of it; output_schema: JSON Schema that the reply's text must fit (the provider is
    asked for it, the caller checks); max_output_tokens: bound on what is written, 0 is the provider's (a
    reply that runs on far beyond it is left, and ends as `length`); key: the same for every attempt of the step,
    handed on as the idempotency key; temperature: None is the provider's; stall_seconds: longest silence on the wire
    before the call counts as cut; tenant: whose call it is, the replies of the others are not for it; expired: asked
    when the call is cancelled, whether that is because its time is over.
    """

    model: str
    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    output_schema: Mapping[str, Any] | None = None
    max_output_tokens: int = 0
    temperature: float | None = None
    key: str = ""
    traceparent: str = ""
    stall_seconds: float = STALL_SECONDS
    tenant: str = ""
    expired: Callable[[], bool] = never


def digest_of(request: ModelRequest) -> str:
    """SHA-256 in hex over all of a call that the answer depends on."""
    body = [
        request.model,
        [
            [m.role, m.text, [[u.id, u.name, u.arguments_json] for u in m.tool_uses], m.tool_use_id]
            for m in request.messages
        ],
        [[tool.name, tool.description, dict(tool.input_schema)] for tool in request.tools],
        None if request.output_schema is None else dict(request.output_schema),
        request.max_output_tokens,
        request.temperature,
    ]
    return hashlib.sha256(canonical_parsed(body).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens of one call; `known` is false where the provider did not say and they were estimated."""

    input_tokens: int = 0
    output_tokens: int = 0
    known: bool = True


@dataclass(frozen=True, slots=True)
class ModelDelta:
    """A piece of a reply as it streams in."""

    kind: Literal["text", "reasoning", "tool_arguments"]
    text: str


@dataclass(frozen=True, slots=True)
class ModelReply:
    """A whole reply. `model` and `request_id` are the provider's; one that is `cached` asked no provider."""

    text: str
    finish: Finish
    usage: TokenUsage
    tool_uses: tuple[ToolUse, ...] = ()
    reasoning: str = ""
    model: str = ""
    request_id: str = ""
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector per text, in order."""

    vectors: tuple[tuple[float, ...], ...]
    usage: TokenUsage
    model: str = ""
    request_id: str = ""


@dataclass(eq=False)
class ProviderError(Exception):
    """A call that failed, as the error model says it.

    reason: REASON_PROVIDER_UNAVAILABLE (not reached, 5xx, cut, stalled: retryable), REASON_PROVIDER_RATE_LIMITED
    (429; `retry_after_ms` if the provider named a time), REASON_PROVIDER_REJECTED (it will never take this call),
    REASON_CONTEXT_OVERFLOW (too long for the model), REASON_MODEL_REPLY_INVALID (what came back cannot be read:
    retryable, but not where it is over a bound), REASON_CONTENT_REFUSED (a filter in front of the model; where the
    model itself declines, the reply says `refused`). message: for the user: no header, key or URL's credentials in it.
    usage: what the call has cost although it failed, as far as one can tell; request_id: the provider's, if it gave one.
    """

    reason: str
    message: str
    retryable: bool = False
    retry_after_ms: int = 0
    usage: TokenUsage | None = None
    request_id: str = ""
    metadata: dict[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        return self.message


def prompt_bytes(messages: Sequence[Message], tools: Sequence[ToolDefinition] = ()) -> int:
    """Bytes that a model reads: of the texts in UTF-8, and 24 for what stands around each."""
    texts: list[str] = []
    for message in messages:
        texts.append(message.text)
        texts += (use.name + use.arguments_json for use in message.tool_uses)
    for tool in tools:
        texts.append(tool.name + tool.description + canonical_parsed(dict(tool.input_schema)))
    return sum(len(text.encode(errors="replace")) + 24 for text in texts)


def reply_bytes(reply: ModelReply) -> int:
    """Bytes that a reply takes: of its texts, and some for what is around them."""
    texts = (reply.text, reply.reasoning, *(use.arguments_json + use.name for use in reply.tool_uses))
    return 512 + sum(len(text.encode(errors="replace")) for text in texts)


def estimated_tokens(text: str) -> int:
    """Tokens of a text where nobody counted them: a quarter of its UTF-8 bytes, rounded up."""
    return (len(text.encode(errors="replace")) + 3) // 4


def estimated_input(request: ModelRequest) -> int:
    """Tokens that a request costs, where nobody counted them, by the same rule."""
    return (prompt_bytes(request.messages, request.tools) + 3) // 4


class ModelProvider(Protocol):
    """An endpoint that serves models. Calls may run concurrently; leaving one, also by cancellation, closes its connection."""

    async def generate(self, request: ModelRequest) -> ModelReply:
        """One reply, whole. Raises ProviderError."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        """The same reply in pieces: deltas, then the whole as the last item. Raises ProviderError.

        A stream that ends without a finish reason was cut: it raises, and what came before is void.
        """
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """A vector for each text. Raises ProviderError."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
