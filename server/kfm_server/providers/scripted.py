"""The provider `scripted`: a script played in this process, with the failures that HTTP would bring."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence

from kfm_server.ports.models import (
    STALL_SECONDS,
    Embeddings,
    ModelDelta,
    ModelReply,
    ModelRequest,
    ProviderError,
    TokenUsage,
    estimated_tokens,
)
from kfm_server.providers import errors
from kfm_server.providers.collect import Collected
from kfm_server.providers.player import NoRule, Player
from kfm_server.providers.scripts import Script, ScriptedFailure

STATUS = {"context_overflow": (400, "context_length_exceeded"), "content_filter": (400, "content_filter")}
"""The status and the code that a kind of failure stands for."""


class ScriptedProvider:
    """Answers from a script. See ports.models.ModelProvider."""

    def __init__(self, script: Script) -> None:
        self.player = Player(script)

    async def generate(self, request: ModelRequest) -> ModelReply:
        """One reply, whole. Raises ProviderError."""
        (reply,) = [item async for item in self.stream(request) if isinstance(item, ModelReply)]
        return reply

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        """The reply in pieces, then whole. Raises ProviderError."""
        try:
            played = self.player.chat(request)
        except NoRule as error:
            raise errors.failure(errors.REJECTED, str(error)) from None
        collected = Collected(request)
        collected.request_id, collected.model = played.request_id, request.model
        count = 0
        for piece in played.pieces():
            if played.failure is not None and count >= played.failure.after_chunks:
                break
            await asyncio.sleep(played.delay_seconds)
            count += 1
            if piece.kind == "tool":
                tool = played.tools[piece.index]
                collected.tool(piece.index, tool.id, tool.name, "")
            elif piece.kind == "tool_arguments":
                collected.tool(piece.index, "", "", piece.text)
                yield ModelDelta("tool_arguments", piece.text)
            elif piece.kind == "reasoning":
                yield collected.reason(piece.text)
            else:
                yield collected.say(piece.text, refused=piece.kind == "refusal")
            if collected.overrun:
                yield collected.reply()
                return
        if played.failure is not None:
            spent = collected.spent() if count else None
            raise await _failed(played.failure, request.stall_seconds, played.request_id, spent)
        collected.finish, collected.usage = played.finish, played.usage
        yield collected.reply()

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """A vector for each text. Raises ProviderError."""
        played, vectors = self.player.embed(model, texts)
        if played.failure is not None:
            raise await _failed(played.failure, STALL_SECONDS, played.request_id, None)
        usage = played.usage or TokenUsage(sum(map(estimated_tokens, texts)), 0, known=False)
        return Embeddings(tuple(map(tuple, vectors)), usage, model, played.request_id)

    async def close(self) -> None:
        """Nothing is open."""


async def _failed(
    failure: ScriptedFailure, stall_seconds: float, request_id: str, spent: TokenUsage | None
) -> ProviderError:
    """The failure as HTTP would bring it."""
    if failure.kind == "stall":
        await asyncio.sleep(stall_seconds)
        return errors.stalled(stall_seconds, request_id, spent)
    if failure.kind == "cut" or (failure.kind == "empty" and spent):
        return errors.cut(request_id, spent)
    if failure.kind in ("bad_json", "wrong_type", "empty"):
        return errors.unreadable(request_id, spent)
    status, code = STATUS.get(failure.kind, (failure.status, failure.code))
    body = {"error": {"code": code, "message": failure.message}}
    if failure.kind == "error_event":
        return errors.from_event(body, usage=spent)
    return errors.from_status(
        status, body, {"retry-after": failure.retry_after}, now=time.time(), request_id=request_id
    )
