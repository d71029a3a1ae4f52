"""Plays a script: which rule answers a call, and what exactly it says."""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from kfm_server.ports.models import (
    Message,
    ModelRequest,
    TokenUsage,
    ToolUse,
    estimated_tokens,
)
from kfm_server.providers.json_schema import example
from kfm_server.providers.scripts import Rule, Script, ScriptedFailure, ScriptedReply

_LISTED = re.compile(r"^-> (.*)$", re.MULTILINE)
"""Results as a summary's prompt lists them."""
_TEMPLATE = re.compile(r"\{\{\s*(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of a reply. A `tool` begins the call `index` (its id and name follow from the reply)."""

    kind: Literal["reasoning", "text", "refusal", "tool", "tool_arguments"]
    text: str = ""
    index: int = 0


@dataclass(frozen=True, slots=True)
class Played:
    """One call's answer. finish: of the wire; usage: None if it is not reported; failure: comes after `after_chunks`."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tools: tuple[ToolUse, ...] = ()
    finish: str = "stop"
    usage: TokenUsage | None = None
    request_id: str = ""
    chunk_chars: int = 8
    chunks: int = 0
    delay_seconds: float = 0.0
    dimensions: int = 8
    failure: ScriptedFailure | None = None

    def pieces(self) -> Iterator[Piece]:
        """The reply in the chunks that it is streamed in: reasoning, text, then the tools, one after the other."""
        yield from self._cut("reasoning", self.reasoning)
        yield from self._cut("text", self.text)
        yield from self._cut("refusal", self.refusal)
        for index, tool in enumerate(self.tools):
            yield Piece("tool", "", index)
            yield from self._cut("tool_arguments", tool.arguments_json, index)

    def _cut(
        self, kind: Literal["reasoning", "text", "refusal", "tool_arguments"], text: str, index: int = 0
    ) -> Iterator[Piece]:
        size = max(1, math.ceil(len(text) / self.chunks)) if self.chunks else self.chunk_chars
        return (Piece(kind, text[i : i + size], index) for i in range(0, len(text), size))


class NoRule(LookupError):
    """No rule of the script fits the call."""


class Player:
    """Answers calls from a script. It remembers only how often each failure with `first` has failed."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._failed: dict[int, int] = {}

    def reset(self, script: Script | None = None) -> None:
        """Forget the failures; with a script, go on with that one."""
        self._script = script or self._script
        self._failed.clear()

    def chat(self, request: ModelRequest) -> Played:
        """The answer to a call. Raises NoRule."""
        played = self._answer("chat", _Call(request))
        if played is None:
            raise NoRule("No rule of the script fits this call.")
        return played

    def embed(self, model: str, texts: Sequence[str]) -> tuple[Played, list[list[float]]]:
        """The answer to a call for embeddings, and a vector for each text: the same text, the same unit vector."""
        call = _Call(ModelRequest(model, (Message("user", "\n".join(texts)),)))
        played = self._answer("embed", call) or Played(request_id=call.request_id)
        played = replace(played, usage=TokenUsage(sum(map(estimated_tokens, texts)), 0))
        return played, [_vector(text, played.dimensions) for text in texts]

    def _answer(self, kind: Literal["chat", "embed"], call: "_Call") -> Played | None:
        """What the first rule that fits says; None if none does."""
        for number, rule in enumerate(self._script.rules):
            if rule.call == kind and (groups := call.groups_of(rule)) is not None:
                return self._played(number, rule, call, groups)
        return None

    def _played(self, number: int, rule: Rule, call: "_Call", groups: Mapping[str, str]) -> Played:
        failure = rule.failure
        if failure is not None and failure.first:
            failed = self._failed.get(number, 0)
            self._failed[number] = failed + 1
            if failed >= failure.first:
                failure = None
        played = _rendered(rule.reply, call, groups) if rule.reply else Played(request_id=call.request_id)
        return replace(played, failure=failure)


class _Call:
    """What conditions and templates look at."""

    def __init__(self, request: ModelRequest) -> None:
        messages = request.messages
        users = [i for i, m in enumerate(messages) if m.role == "user"]
        since = messages[users[-1] + 1 :] if users else messages
        results = [m.text for m in since if m.role == "tool"]
        self.request = request
        self.user = messages[users[-1]].text if users else ""
        self.system = next((m.text for m in messages if m.role == "system"), "")
        self.tool = results[-1] if results else ""
        self.step = sum(m.role == "assistant" for m in since)
        self.words = {
            "last_user": self.user,
            "last_tool": self.tool,
            "results": " ".join(map(_said, results or _LISTED.findall(self.user))),
            "model": request.model,
        }
        whole = json.dumps([request.model, [(m.role, m.text, m.tool_use_id) for m in messages]])
        self.digest = hashlib.sha256(whole.encode(errors="replace")).hexdigest()[:16]
        self.request_id = f"req_{self.digest}"

    def groups_of(self, rule: Rule) -> dict[str, str] | None:
        """The named groups of the rule's expressions; None if it does not fit."""
        if rule.step is not None and rule.step != self.step:
            return None
        if rule.schema is not None and rule.schema != (self.request.output_schema is not None):
            return None
        if rule.offers and all(tool.name != rule.offers for tool in self.request.tools):
            return None
        groups: dict[str, str] = {}
        looked_at = (
            (rule.user, self.user),
            (rule.system, self.system),
            (rule.tool, self.tool),
            (rule.model, self.request.model),
        )
        for pattern, text in looked_at:
            if pattern is None:
                continue
            found = pattern.search(text)
            if found is None:
                return None
            groups |= {name: value or "" for name, value in found.groupdict().items()}
        return groups


def _rendered(reply: ScriptedReply, call: _Call, groups: Mapping[str, str]) -> Played:
    words = {**call.words, **groups}

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return _TEMPLATE.sub(lambda found: words.get(found[1], found[0]), value)
        if isinstance(value, dict):
            return {k: filled(v) for k, v in cast("dict[str, Any]", value).items()}
        if isinstance(value, list):
            return [filled(v) for v in cast("list[Any]", value)]
        return value

    text: str = filled(reply.text) * reply.repeat
    if reply.fit_schema and call.request.output_schema is not None:
        text = json.dumps(example(call.request.output_schema), ensure_ascii=False)
    elif reply.json is not None:
        text = json.dumps(filled(reply.json), ensure_ascii=False)
    tools = tuple(
        ToolUse(
            id=f"call_{call.digest}_{i}" if tool.id is None else tool.id,
            name=tool.name,
            arguments_json=json.dumps(filled(tool.arguments or {}), ensure_ascii=False)
            if tool.raw is None
            else tool.raw,
        )
        for i, tool in enumerate(reply.tools)
    )
    reasoning, refusal = filled(reply.reasoning), filled(reply.refusal)
    usage = None
    if reply.usage:
        told = sum(estimated_tokens(m.text) for m in call.request.messages)
        said = estimated_tokens(text + reasoning + refusal + "".join(t.arguments_json for t in tools))
        usage = TokenUsage(
            told if reply.input_tokens is None else reply.input_tokens,
            said if reply.output_tokens is None else reply.output_tokens,
        )
    return Played(
        text=text,
        reasoning=reasoning,
        refusal=refusal,
        tools=tools,
        finish=reply.finish or ("tool_calls" if tools else "stop"),
        usage=usage,
        request_id=call.request_id,
        chunk_chars=reply.chunk_chars,
        chunks=reply.chunks,
        delay_seconds=reply.delay_ms / 1000,
        dimensions=reply.dimensions,
    )


def _said(result: str) -> str:
    """What a tool said to people: the `text` of its answer, wherever it lies, else all of it."""
    try:
        value: Any = json.loads(result)
    except ValueError:
        return result
    while isinstance(value, dict):
        found = cast("dict[str, Any]", value)
        if isinstance(found.get("text"), str):
            return found["text"]
        value = next((v for v in found.values() if isinstance(v, dict)), None)
    return result


def _vector(text: str, dimensions: int) -> list[float]:
    numbers: list[float] = []
    for block in range(math.ceil(dimensions / 16)):
        digest = hashlib.blake2b(text.encode(errors="replace"), salt=block.to_bytes(8, "big")).digest()
        numbers += [int.from_bytes(digest[i : i + 4], "big") / 2**31 - 1 for i in range(0, 64, 4)]
    numbers = numbers[:dimensions]
    length = math.sqrt(sum(x * x for x in numbers)) or 1.0
    return [x / length for x in numbers]
