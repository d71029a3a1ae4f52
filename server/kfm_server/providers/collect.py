"""Collects a reply from its pieces, whichever adapter brings them, and normalises it."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from kfm_server.ports.models import (
    Embeddings,
    Finish,
    ModelDelta,
    ModelReply,
    ModelRequest,
    TokenUsage,
    ToolUse,
    estimated_input,
    estimated_tokens,
)
from kfm_server.providers import errors

MAX_REPLY_CHARS: Final = 8 * 1024 * 1024
"""Longest reply: text, reasoning and tool arguments together, in characters."""
MAX_TOOL_USES: Final = 128
"""Most tool calls of one reply."""
BYTES_PER_TOKEN: Final = 8
OVERRUN_BYTES: Final = 64 * 1024
"""What a reply may be at most is BYTES_PER_TOKEN for each of its `max_output_tokens`, and this: generous, for a provider
that keeps to that bound. Of one that does not, no more is read, and the reply ends as `length`.
"""
YIELD_EVERY: Final = 16
"""Pieces of a stream after which everything else gets to run, although more of it is there already."""

_FINISH: dict[str, Finish] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "refused",
    "refusal": "refused",
    "safety": "refused",
}
"""What providers call the end of a reply, where it is not by itself or for tools."""


class _Tool:
    __slots__ = ("arguments", "id", "index", "name")

    def __init__(self, index: int | None, id: str, name: str) -> None:
        self.index, self.id, self.name = index, id, name
        self.arguments: list[str] = []


class Collected:
    """A reply as far as it has come. `finish` and `usage` are the provider's, in its own words."""

    __slots__ = (
        "_bytes",
        "_most_bytes",
        "_pieces",
        "_reasoning",
        "_refused",
        "_size",
        "_text",
        "_tools",
        "finish",
        "model",
        "request",
        "request_id",
        "usage",
    )

    def __init__(self, request: ModelRequest) -> None:
        self.request = request
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._tools: list[_Tool] = []
        self._refused = False
        self._size = self._bytes = self._pieces = 0
        most = request.max_output_tokens
        self._most_bytes = BYTES_PER_TOKEN * most + OVERRUN_BYTES if most else 0
        self.finish = ""
        self.usage: TokenUsage | None = None
        self.model = ""
        self.request_id = ""

    def say(self, text: str, *, refused: bool = False) -> ModelDelta:
        """More text; `refused` if it is the model's refusal. Raises ProviderError over the bound, as all here do."""
        self._grow(text)
        self._refused |= refused
        self._text.append(text)
        return ModelDelta("text", text)

    def reason(self, text: str) -> ModelDelta:
        """More reasoning."""
        self._grow(text)
        self._reasoning.append(text)
        return ModelDelta("reasoning", text)

    def tool(self, index: int | None, id: str, name: str, arguments: str) -> None:
        """A piece of a tool call. Providers differ: the index may be missing, or the same for all calls; ids may be
        missing, come again with each piece, or be the same for two calls.
        """
        self._grow(arguments)
        found = self._which(index, id, name)
        if found is None:
            if len(self._tools) >= MAX_TOOL_USES:
                message = f"The model calls more than {MAX_TOOL_USES} tools at once."
                raise errors.failure(
                    errors.INVALID,
                    message,
                    retryable=False,
                    usage=self.spent(),
                    limit="max_tool_uses",
                    max=str(MAX_TOOL_USES),
                )
            found = _Tool(index, id, name)
            self._tools.append(found)
        found.id = found.id or id
        found.name = found.name or name
        found.arguments.append(arguments)

    def _which(self, index: int | None, id: str, name: str) -> _Tool | None:
        """The call that a piece continues; None if it begins one."""
        last = self._tools[-1] if self._tools else None
        if index is None:
            begins = last is None or (id and id != last.id) or (name and bool(last.arguments))
            return None if begins else last
        for tool in reversed(self._tools):
            if tool.index == index:
                return None if id and tool.id and id != tool.id else tool
        return None

    @property
    def said(self) -> bool:
        """Whether anything has come: text, reasoning or a tool call."""
        return bool(self._size or self._tools)

    @property
    def overrun(self) -> bool:
        """Whether so much has come that the provider does not keep to `max_output_tokens`: read no further."""
        return 0 < self._most_bytes < self._bytes

    async def pause(self) -> None:
        """To be awaited after each piece of a stream: every YIELD_EVERY of them, the event loop gets its turn."""
        self._pieces += 1
        if self._pieces % YIELD_EVERY == 0:
            await asyncio.sleep(0)

    def spent(self) -> TokenUsage:
        """What it has cost so far: as reported, else estimated."""
        if self.usage is not None:
            return self.usage
        arguments = "".join("".join(t.arguments) + t.name for t in self._tools)
        said = "".join(self._text) + "".join(self._reasoning) + arguments
        return TokenUsage(estimated_input(self.request), estimated_tokens(said), known=False)

    def reply(self) -> ModelReply:
        """The whole, normalised: every tool call has an id of its own, and the finish is one of the port's."""
        finish: Finish = _FINISH.get(self.finish.lower(), "stop")
        if self._refused:
            finish = "refused"
        elif self.overrun:
            finish = "length"
        elif self._tools and finish == "stop":
            finish = "tool_calls"
        taken: set[str] = set()
        uses: list[ToolUse] = []
        for number, tool in enumerate(self._tools):
            id = tool.id or f"call_{number}"
            while id in taken:
                id = f"{id}_{number}"
            taken.add(id)
            uses.append(ToolUse(id, tool.name, "".join(tool.arguments) or "{}"))
        return ModelReply(
            text="".join(self._text),
            finish=finish,
            usage=self.spent(),
            tool_uses=tuple(uses),
            reasoning="".join(self._reasoning),
            model=self.model or self.request.model,
            request_id=self.request_id,
        )

    def _grow(self, text: str) -> None:
        self._size += len(text)
        if self._most_bytes:
            self._bytes += len(text.encode(errors="replace"))
        if self._size > MAX_REPLY_CHARS:
            error = errors.failure(
                errors.INVALID,
                f"The model's reply is longer than {MAX_REPLY_CHARS} characters.",
                retryable=False,
                usage=self.spent(),
                limit="max_reply_chars",
                max=str(MAX_REPLY_CHARS),
            )
            raise error


def embeddings(
    rows: Any, texts: Sequence[str], usage: TokenUsage | None, *, model: str, request_id: str
) -> Embeddings:
    """The vectors of a reply's `data`; a usage of None is estimated. Raises ProviderError if it is not one for each text."""
    try:
        found = {row["index"]: tuple(map(float, row["embedding"])) for row in rows}
        vectors = tuple(found[number] for number in range(len(texts)))
        if len(rows) != len(texts):
            raise ValueError("not one vector for each text")
    except errors.MALFORMED:
        raise errors.unreadable(request_id, usage) from None
    spent = usage or TokenUsage(sum(map(estimated_tokens, texts)), 0, known=False)
    return Embeddings(vectors, spent, model, request_id)
