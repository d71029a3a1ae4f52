"""ProviderService: translates between its messages and the gateway of models."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from kfm.catalogue.errors import (
    IdempotencyConflict,
    InvalidArgument,
    KfmError,
    ModelNotFound,
    Overloaded,
    Violation,
    error_of,
)
from kfm.provider.v1 import provider_service_pb2 as pb
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import clean_text, parse_json
from kfm_server.doors.grpc.interceptor import Call
from kfm_server.ports.gateway import Answer, FlightsFull, KeyTaken, Listed, Lost, ModelGateway
from kfm_server.ports.models import (
    Finish,
    Message,
    ModelDelta,
    ModelRequest,
    ProviderError,
    Role,
    ToolDefinition,
    ToolUse,
)

MAX_EMBED_BYTES: Final = 1024 * 1024
"""Most bytes of all texts of one call that embeds."""

_ROLES: Final[dict[int, Role]] = {
    pb.PROMPT_ROLE_SYSTEM: "system",
    pb.PROMPT_ROLE_USER: "user",
    pb.PROMPT_ROLE_ASSISTANT: "assistant",
    pb.PROMPT_ROLE_TOOL: "tool",
}
_FINISHES: Final[dict[Finish, pb.Finish]] = {
    "stop": pb.FINISH_STOP,
    "length": pb.FINISH_LENGTH,
    "tool_calls": pb.FINISH_TOOL_CALLS,
    "refused": pb.FINISH_REFUSED,
}
_BREAKERS: Final = {
    "closed": pb.BREAKER_CLOSED,
    "half_open": pb.BREAKER_HALF_OPEN,
    "open": pb.BREAKER_OPEN,
}


_FAILURES: Final = (LookupError, ProviderError, KeyTaken, FlightsFull)


class ProviderService:
    """The bodies of kfm.provider.v1.ProviderService, by the names of its RPCs."""

    SERVICE = "kfm.provider.v1.ProviderService"

    def __init__(self, gateway: ModelGateway, listed: Listed) -> None:
        """`listed`: the models as they are at this moment."""
        self._gateway = gateway
        self._listed = listed

    async def Generate(self, call: Call, request: pb.GenerateRequest) -> pb.GenerateResponse:
        """One reply. ModelNotFound, IdempotencyConflict, and the provider's failures."""
        try:
            answer = await self._gateway.generate(
                request.model, _request(call, request.prompt, request.idempotency_key)
            )
        except _FAILURES as error:
            raise _told(error, request.model) from None
        return pb.GenerateResponse(reply=_reply(answer))

    async def StreamGenerate(
        self, call: Call, request: pb.StreamGenerateRequest
    ) -> AsyncGenerator[pb.StreamGenerateResponse, None]:
        """The reply in pieces, then whole."""
        asked = _request(call, request.prompt, request.idempotency_key)
        try:
            async with aclosing(self._gateway.stream(request.model, asked)) as pieces:
                async for piece in pieces:
                    yield _piece(piece)
        except _FAILURES as error:
            raise _told(error, request.model) from None

    async def Embed(self, call: Call, request: pb.EmbedRequest) -> pb.EmbedResponse:
        """A vector of each text. ModelNotFound, and the provider's failures."""
        if sum(len(text.encode()) for text in request.texts) > MAX_EMBED_BYTES:
            raise _invalid("texts", f"the texts are larger than {MAX_EMBED_BYTES} bytes together")
        try:
            found, usage = await self._gateway.embed(request.model, request.texts)
        except (LookupError, ProviderError) as error:
            raise _told(error, request.model) from None
        return pb.EmbedResponse(
            vectors=[pb.Vector(values=vector) for vector in found.vectors],
            usage=usage,
            provider_model=clean_text(found.model)[:256],
        )

    async def ListModels(self, call: Call, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        """All, with the breakers of this process."""
        return pb.ListModelsResponse(
            models=[
                pb.Model(
                    name=spec.name,
                    provider=spec.provider,
                    provider_model=spec.model,
                    context_tokens=spec.context_tokens,
                    max_output_tokens=spec.max_output_tokens,
                    fallbacks=spec.fallbacks,
                    breaker=_BREAKERS[breaker.state],
                    failures=breaker.failures,
                )
                for spec, breaker in self._listed()
            ]
        )


def _request(call: Call, prompt: pb.Prompt, key: str) -> ModelRequest:
    return ModelRequest(
        model="",
        messages=tuple(
            Message(
                _ROLES[message.role],
                message.text,
                tuple(ToolUse(use.id, use.name, use.arguments_json) for use in message.tool_uses),
                message.tool_use_id,
            )
            for message in prompt.messages
        ),
        tools=tuple(
            ToolDefinition(
                tool.name,
                tool.description,
                _schema(tool.input_schema_json, f"prompt.tools[{index}].input_schema_json")
                or {"type": "object", "properties": {}},
            )
            for index, tool in enumerate(prompt.tools)
        ),
        output_schema=_schema(prompt.output_schema_json, "prompt.output_schema_json"),
        max_output_tokens=prompt.max_output_tokens,
        temperature=prompt.temperature if prompt.HasField("temperature") else None,
        key=key,
        traceparent=call.ctx.traceparent,
        tenant=call.ctx.tenant_id,
    )


def _schema(text: str, field: str) -> dict[str, Any] | None:
    if not text:
        return None
    try:
        value = parse_json(text)
    except ValueError as error:
        raise _invalid(field, f"it is {error}") from None
    if not isinstance(value, dict):
        raise _invalid(field, "it is no JSON object")
    return value


def _invalid(field: str, message: str) -> KfmError:
    return InvalidArgument(violations=[Violation(field, "value", message)])


def _told(error: Exception, model: str) -> KfmError:
    """A failure of the gateway as doors tell it."""
    if isinstance(error, ProviderError):
        metadata = {"model": model, **error.metadata}
        if error.retry_after_ms:
            metadata["retry_after_ms"] = str(error.retry_after_ms)
        return error_of(error.reason, clean_text(error.message)[:4096], metadata=metadata)
    if isinstance(error, KeyTaken):
        return IdempotencyConflict()
    if isinstance(error, FlightsFull):
        return Overloaded("Too many calls with idempotency keys are under way.", retry_after_ms=1000)
    return ModelNotFound(clean_text(str(error)), metadata={"model": model})


def _piece(piece: ModelDelta | Answer) -> pb.StreamGenerateResponse:
    if isinstance(piece, Answer):
        return pb.StreamGenerateResponse(reply=_reply(piece))
    text = clean_text(piece.text)
    match piece.kind:
        case "text":
            return pb.StreamGenerateResponse(text=text)
        case "reasoning":
            return pb.StreamGenerateResponse(reasoning=text)
        case "tool_arguments":
            return pb.StreamGenerateResponse(tool_arguments=text)


def _reply(answer: Answer) -> pb.Reply:
    reply = answer.reply
    return pb.Reply(
        text=clean_text(reply.text),
        reasoning=clean_text(reply.reasoning),
        tool_uses=[
            pb.ToolUse(
                id=clean_text(use.id)[:256],
                name=clean_text(use.name)[:256],
                arguments_json=clean_text(use.arguments_json),
            )
            for use in reply.tool_uses
        ],
        finish=_FINISHES[reply.finish],
        usage=answer.usage,
        usage_estimated=not reply.usage.known,
        model=answer.model,
        provider_model=clean_text(reply.model)[:256],
        provider_request_id=clean_text(reply.request_id)[:256],
        cached=reply.cached,
        failed=[_lost(one) for one in answer.lost],
    )


def _lost(lost: Lost) -> pb.FailedCall:
    error = lost.error
    why = types.Error(
        reason=error.reason,
        message=clean_text(error.message)[:4096],
        retryable=error.retryable,
        metadata=error.metadata,
    )
    return pb.FailedCall(model=lost.model, error=why, usage=lost.usage)
