"""The provider `litellm`: OpenAI, Anthropic, Ollama and the rest, by LiteLLM's names for models.

LiteLLM is loaded at the first call, in a thread: that takes seconds. It is told to retry nothing, to fetch nothing
and to log nothing. What it makes up is undone: an end of a stream that never came, and token counts of its own.
"""

import asyncio
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from typing import Any, Final, cast

import orjson

from kfm_server.ports.models import (
    STALL_SECONDS,
    Embeddings,
    ModelDelta,
    ModelReply,
    ModelRequest,
    ProviderError,
    TokenUsage,
)
from kfm_server.providers import errors
from kfm_server.providers.collect import Collected, embeddings
from kfm_server.providers.openai_wire import request_body, take_message
from kfm_server.secret import NO_SECRET, Secret

_NO_LIMIT_SECONDS: Final = 24 * 3600.0
"""LiteLLM's own bound on a call: the silence is bounded here, and the whole by the engine."""
_UNREADABLE = {"JSONDecodeError", "APIResponseValidationError"}
_UNREADABLE_SAID = ("invalid response from LLM", "Invalid response object Traceback")
_OF_OLLAMA = "Got unexpected response from Ollama: "
_NOT_REACHED = {
    "APIConnectionError",
    "ConnectError",
    "ReadError",
    "RemoteProtocolError",
    "ClientPayloadError",
}

_ready = threading.Event()


class LiteLLMProvider:
    """Models by LiteLLM. See ports.models.ModelProvider.

    base_url: empty is the provider's own; api_key: empty lets LiteLLM look for the provider's usual variable in the
    environment, but only where base_url is empty too: that key is not for somebody else's endpoint.
    """

    def __init__(self, base_url: str = "", api_key: Secret = NO_SECRET) -> None:
        self._given: dict[str, Any] = {"num_retries": 0, "max_retries": 0, "timeout": _NO_LIMIT_SECONDS}
        if base_url:
            self._given |= {"api_base": base_url, "api_key": api_key.reveal() or "none"}
        elif api_key:
            self._given["api_key"] = api_key.reveal()
        self._secrets = (api_key.reveal(),)

    def __repr__(self) -> str:
        return "LiteLLMProvider()"

    async def generate(self, request: ModelRequest) -> ModelReply:
        """One reply, whole. Raises ProviderError."""
        collected = Collected(request)
        answer = await self._completion(request, stream=False)
        collected.model, collected.request_id = _own_name(answer.model, request), _request_id(answer)
        collected.usage = _usage(getattr(answer, "usage", None))
        try:
            choice = answer.choices[0]
            take_message(_message(choice.message), collected)
        except errors.MALFORMED:
            raise errors.unreadable(collected.request_id, collected.spent()) from None
        collected.finish = choice.finish_reason or "stop"
        return collected.reply()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        """The reply in pieces, then whole. Raises ProviderError."""
        collected = Collected(request)
        answer = await self._completion(request, stream=True)
        collected.request_id = _request_id(answer)
        usage: Any = None
        try:
            chunks = aiter(answer)
            while (chunk := await self._next(chunks, collected)) is not None:
                usage = _fields(chunk).get("usage") or usage
                collected.model = collected.model or _own_name(chunk.model, request)
                for choice in chunk.choices[:1]:
                    for delta in take_message(_message(choice.delta), collected):
                        yield delta
                    collected.finish = choice.finish_reason or collected.finish
                if collected.overrun:
                    break
                _forget(answer)
                await collected.pause()
            if not (collected.overrun or answer.received_finish_reason or answer.intermittent_finish_reason):
                raise self._ended_early(answer, collected)
            if any(getattr(told, "usage", None) for told in answer.chunks):  # else it has counted itself
                collected.usage = _usage(usage)
                if not collected.said and collected.usage and collected.usage.output_tokens:
                    # Tokens were written and nothing came: LiteLLM drops the pieces of a refusal.
                    collected.say("", refused=True)
        finally:
            await answer.aclose()
        yield collected.reply()

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """A vector for each text. Raises ProviderError."""
        litellm = await load()
        try:
            async with asyncio.timeout(STALL_SECONDS):
                answer = await litellm.aembedding(model=model, input=list(texts), **self._given)
        except TimeoutError:
            raise errors.stalled(STALL_SECONDS) from None
        except Exception as error:
            if "Unmapped LLM provider" in str(error):  # nobody was asked
                raise errors.failure(errors.REJECTED, f"LiteLLM has no embeddings for {model}.") from None
            raise self._failed(error, None) from None
        told, id = answer.model or model, _request_id(answer)
        return embeddings(answer.data, texts, _usage(answer.usage), model=told, request_id=id)

    async def close(self) -> None:
        """LiteLLM keeps its connections for the process."""

    async def _completion(self, request: ModelRequest, *, stream: bool) -> Any:
        litellm = await load()
        headers = {"Idempotency-Key": request.key, "traceparent": request.traceparent}
        try:
            async with asyncio.timeout(request.stall_seconds):
                return await litellm.acompletion(
                    **request_body(request, stream=stream),
                    **self._given,
                    # Not every provider knows every parameter; what a schema asks for is checked by the caller.
                    drop_params=True,
                    extra_headers={name: value for name, value in headers.items() if value},
                )
        except TimeoutError:
            raise errors.stalled(request.stall_seconds) from None
        except Exception as error:  # whatever a provider's adapter raises
            raise self._failed(error, Collected(request)) from None

    async def _next(self, chunks: Any, collected: Collected) -> Any:
        seconds = collected.request.stall_seconds
        try:
            async with asyncio.timeout(seconds):
                return await anext(chunks, None)
        except TimeoutError:
            raise errors.stalled(seconds, collected.request_id, collected.spent()) from None
        except Exception as error:
            raise self._failed(error, collected) from None

    def _ended_early(self, answer: Any, collected: Collected) -> ProviderError:
        if answer.chunks:
            return errors.cut(collected.request_id, collected.spent())
        return errors.unreadable(collected.request_id, collected.spent())

    def _failed(self, error: Exception, collected: Collected | None) -> ProviderError:
        """What LiteLLM raised, in the words of the error model. Its class says little: most is 500 for it."""
        if isinstance(error, ProviderError):
            return error
        kinds = {type(cause).__name__ for cause in _causes(error)}
        usage, request_id = (collected.spent(), collected.request_id) if collected else (None, "")
        if kinds & _UNREADABLE or any(said in str(error) for said in _UNREADABLE_SAID):
            return errors.unreadable(request_id, usage)
        if _OF_OLLAMA in str(error):  # LiteLLM takes an error within a stream for a refusal of the call
            said = str(error).partition(_OF_OLLAMA)[2].removeprefix("{'error': ").strip("'}")
            return errors.from_event(said, secrets=self._secrets, usage=usage)
        headers, body = _headers(error), _body(error)
        if "MidStreamFallbackError" in kinds:
            if kinds & _NOT_REACHED:
                return errors.cut(request_id, usage)
            return errors.from_event({"error": body}, secrets=self._secrets, usage=usage)
        if kinds & _NOT_REACHED:
            return errors.failure(
                errors.UNAVAILABLE, "The model provider cannot be reached, or ended the connection."
            )
        code = {
            "ContextWindowExceededError": "context_length_exceeded",
            "ContentPolicyViolationError": "content_policy_violation",
        }.get(type(error).__name__)
        if code:
            body = {**body, "code": code}
        status = getattr(error, "status_code", None)
        return errors.from_status(
            status if isinstance(status, int) and status >= 300 else 500,
            {"error": body},
            headers,
            now=time.time(),
            secrets=self._secrets,
            request_id=headers.get("x-request-id", ""),
        )


async def load() -> Any:
    """LiteLLM, loaded once and off the event loop. Raises ProviderError if it is not installed."""
    # Two first calls at once both wait for the one import: Python's own lock sees to that.
    return sys.modules["litellm"] if _ready.is_set() else await asyncio.to_thread(_load)


def _load() -> Any:
    # It reads these while it is imported: else it fetches a price list and reads .env files.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")
    try:
        litellm: Any = importlib.import_module("litellm")
    except ImportError:
        message = "LiteLLM is not installed; install kfm-server[litellm]."
        raise errors.failure(errors.REJECTED, message) from None
    litellm.suppress_debug_info = True
    litellm.num_retries = 0
    litellm.DEFAULT_MAX_RETRIES = 0  # embeddings take a bound of 0 for none, and then this one
    for name in ("callbacks", "success_callback", "failure_callback"):
        setattr(litellm, name, [])
    # It takes a hundred equal chunks in a row for a fault; a table or a line may well hold them.
    litellm.REPEATED_STREAMING_CHUNK_LIMIT = sys.maxsize
    for name in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.CRITICAL + 1)  # its lines may hold what was asked
    # What its first call would otherwise load on the event loop, for most of a second.
    importlib.import_module("openai.resources")
    litellm.token_counter(model="gpt-4o", text="warm")
    # It counts what the provider did not, on the event loop; a long word costs it the square of its length.
    litellm.disable_token_counter = True
    _ready.set()
    return litellm


def _forget(answer: Any) -> None:
    """Drops what LiteLLM keeps of a stream for its logs: it copies the whole text at every piece, and at the end, or
    when the stream fails, builds the reply of all pieces again. What stays: the first and the last report of usage, and
    the last two pieces, which it compares.
    """
    answer.response_uptil_now = ""
    told = [piece for piece in answer.chunks[:-2] if getattr(piece, "usage", None)]
    answer.chunks[:-2] = told if len(told) < 2 else [told[0], told[-1]]


def _message(message: Any) -> dict[str, Any]:
    """A message of LiteLLM's, or a piece of one, as OpenAI's JSON."""
    found: dict[str, Any] = _fields(message)
    if not found.get("refusal"):
        found["refusal"] = (found.get("provider_specific_fields") or {}).get("refusal")
    if found.get("tool_calls"):
        found["tool_calls"] = [
            {
                "index": getattr(call, "index", None),
                "id": call.id,
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in found["tool_calls"]
        ]
    return found


def _fields(model: Any) -> dict[str, Any]:
    """What a pydantic model holds, as it is: asking it for what is not there costs more than all else here."""
    return {**model.__dict__, **(model.__pydantic_extra__ or {})}


def _own_name(model: str | None, request: ModelRequest) -> str:
    """The model as its provider names it: for some providers LiteLLM tells its own name, with the provider before it."""
    return request.model.partition("/")[2] if model == request.model else model or ""


def _usage(usage: Any) -> TokenUsage | None:
    """Tokens as the provider reported them; LiteLLM says zero where it did not."""
    if usage is None or not (usage.prompt_tokens or usage.completion_tokens):
        return None
    return TokenUsage(usage.prompt_tokens or 0, usage.completion_tokens or 0)


def _request_id(answer: Any) -> str:
    hidden: Any = getattr(answer, "_hidden_params", None) or {}
    headers: Any = hidden.get("additional_headers") or {}
    return str(headers.get("llm_provider-x-request-id") or getattr(answer, "id", None) or "")[:200]


def _headers(error: Exception) -> Mapping[str, str]:
    """The headers of the provider's answer, wherever LiteLLM has left them."""
    for cause in _causes(error):
        for found in (
            getattr(getattr(cause, "response", None), "headers", None),
            getattr(cause, "litellm_response_headers", None),
            getattr(cause, "headers", None),
        ):
            if found and "date" in found:  # what LiteLLM makes up has none
                return found
    return {}


def _body(error: Exception) -> dict[str, Any]:
    """The provider's own error, if LiteLLM has kept it, be it as a part of its message; else LiteLLM's words."""
    for cause in _causes(error):
        found: Any = getattr(cause, "body", None)
        if isinstance(found, dict):
            return cast("dict[str, Any]", found)
    # The innermost words are the provider's, those around them LiteLLM's.
    message = [str(getattr(cause, "message", "")) or str(error) for cause in _causes(error)][-1]
    try:
        inner: Any = orjson.loads(message[message.index("{") : message.rindex("}") + 1])
    except ValueError:
        return {"message": message}
    own = cast("dict[str, Any]", inner).get("error")
    return cast("dict[str, Any]", own) if isinstance(own, dict) else {"message": own or message}


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__
