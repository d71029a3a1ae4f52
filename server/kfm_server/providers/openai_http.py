"""The provider `openai`: any OpenAI-compatible endpoint, directly over HTTP and server-sent events.

One call is one request: nothing is retried here, redirects are not followed, and a call that is left closes its
connection. Answers are bounded by MAX_BODY_BYTES, collect.MAX_REPLY_CHARS and sse.MAX_LINE_BYTES; a stream that runs
far beyond `max_output_tokens` is left (collect.OVERRUN_BYTES).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from kfm_server.ports.models import (
    Embeddings,
    ModelDelta,
    ModelReply,
    ModelRequest,
    ProviderError,
)
from kfm_server.providers import errors
from kfm_server.providers.collect import Collected, embeddings
from kfm_server.providers.openai_wire import request_body, take_chunk, take_whole, token_usage
from kfm_server.providers.sse import EventReader
from kfm_server.secret import NO_SECRET, Secret

OPENAI_URL: Final = "https://api.openai.com/v1"
MAX_BODY_BYTES: Final = 128 * 1024 * 1024
"""Largest answer on the wire, a stream with all its framing included."""
MAX_ERROR_BYTES: Final = 64 * 1024
"""What is read of an answer that is an error."""
CONNECT_SECONDS: Final = 10.0
_DRAIN_SECONDS: Final = 0.1
"""How long the end of a stream is waited for after its last event, so that its connection can be used again."""


class OpenAIProvider:
    """One endpoint and one key, over one pool of connections. See ports.models.ModelProvider.

    base_url: up to and with `/v1`, without user, password and query; empty is OpenAI's. Raises ValueError if it is no such
    http or https address; the message does not hold it.
    """

    def __init__(self, base_url: str = "", api_key: Secret = NO_SECRET) -> None:
        try:
            url = URL(base_url or OPENAI_URL)
        except ValueError:
            url = URL()
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("base_url is no http:// or https:// address")
        if url.raw_user or url.raw_password:
            raise ValueError("base_url holds a user or a password; what calls carry is api_key")
        if url.raw_query_string or url.raw_fragment:
            raise ValueError("base_url holds a query or a fragment: put the key into api_key")
        self._headers = {"Accept-Encoding": "identity", "Content-Type": "application/json"}
        self._secrets: tuple[str, ...] = ()
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key.reveal()}"
            self._secrets = (api_key.reveal(),)
        self._url = url
        self._limit_key = "max_completion_tokens" if url.host == "api.openai.com" else "max_tokens"
        self._chat_url, self._embed_url = self._url / "chat/completions", self._url / "embeddings"
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"OpenAIProvider({self._url.origin()})"

    async def generate(self, request: ModelRequest) -> ModelReply:
        """One reply, whole. Raises ProviderError."""
        collected = Collected(request)
        body = request_body(request, stream=False, limit_key=self._limit_key)
        async with self._post(self._chat_url, body, request) as response:
            collected.request_id = _request_id(response)
            async with _reading(response, request.stall_seconds, None):
                take_whole(await _json_of(response), collected, self._secrets)
        return collected.reply()

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        """The reply in pieces, then whole. Raises ProviderError."""
        collected = Collected(request)
        body = request_body(request, stream=True, limit_key=self._limit_key)
        async with self._post(self._chat_url, body, request) as response:
            collected.request_id = _request_id(response)
            async with _reading(response, request.stall_seconds, collected):
                if not response.content_type.endswith("event-stream"):
                    # Some servers cannot stream what was asked and answer whole.
                    take_whole(await _json_of(response), collected, self._secrets)
                else:
                    async with aclosing(_events(response)) as events:
                        async for event in events:
                            for delta in take_chunk(event, collected, self._secrets):
                                yield delta
                            if collected.overrun:
                                break
                            await collected.pause()
        if not (collected.finish or collected.overrun):
            raise errors.cut(collected.request_id, collected.spent())
        yield collected.reply()

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """A vector for each text. Raises ProviderError."""
        request = ModelRequest(model, ())
        async with self._post(self._embed_url, {"model": model, "input": list(texts)}, request) as response:
            async with _reading(response, request.stall_seconds, None):
                body = await _json_of(response)
                usage = token_usage(body["usage"]) if body.get("usage") else None
                told, id = body.get("model") or model, _request_id(response)
                return embeddings(body["data"], texts, usage, model=told, request_id=id)

    async def close(self) -> None:
        """Close its connections; calls under way fail as cut."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _post(
        self, url: URL, body: Mapping[str, Any], request: ModelRequest
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer to one request, if its status is 200. Not read to its end, its connection is closed."""
        headers = dict(self._headers)
        if request.key:
            headers["Idempotency-Key"] = request.key
        if request.traceparent:
            headers["traceparent"] = request.traceparent
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=request.stall_seconds)
        try:
            response = await self._opened().post(
                url, data=orjson.dumps(body), headers=headers, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            raise _unreached(error, request.stall_seconds) from None
        try:
            if response.status != 200:
                raise await self._refused(response)
            yield response
        finally:
            response.close()  # an answer read to its end has given its connection back by now

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How many calls run at once is the engine's to say.
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=MAX_ERROR_BYTES,
            )
        return self._session

    async def _refused(self, response: aiohttp.ClientResponse) -> ProviderError:
        body: Any = ""
        try:
            body = await response.content.read(MAX_ERROR_BYTES)
            body = orjson.loads(body)
        except ValueError:
            body = body.decode(errors="replace") if response.content_type.startswith("text/plain") else ""
        except (aiohttp.ClientError, OSError):
            pass  # the status says enough
        return errors.from_status(
            response.status,
            body,
            response.headers,
            now=time.time(),
            secrets=self._secrets,
            request_id=_request_id(response),
        )


@asynccontextmanager
async def _reading(
    response: aiohttp.ClientResponse, stall_seconds: float, collected: Collected | None
) -> AsyncGenerator[None]:
    """Turns what goes wrong while an answer is read into a ProviderError; `collected` is what has come of it."""
    request_id = _request_id(response)
    try:
        yield
    except ProviderError as error:
        error.request_id = error.request_id or request_id
        error.usage = error.usage or (collected and collected.spent())
        raise
    except aiohttp.SocketTimeoutError:
        raise errors.stalled(stall_seconds, request_id, collected and collected.spent()) from None
    except (aiohttp.ClientError, OSError):
        if collected is None or not collected.finish:
            raise errors.cut(request_id, collected and collected.spent()) from None
    except errors.MALFORMED:
        raise errors.unreadable(request_id, collected and collected.spent()) from None


async def _events(response: aiohttp.ClientResponse) -> AsyncGenerator[Any]:
    """The events of a stream, read from JSON."""
    reader, total, loads = EventReader(), 0, orjson.loads
    async for piece in response.content.iter_any():
        total += len(piece)
        if total > MAX_BODY_BYTES:
            raise errors.over_bound("answer", "max_body_bytes", MAX_BODY_BYTES)
        for data in reader.feed(piece):
            if data == b"[DONE]":
                await _drain(response)
                return
            yield loads(data)
    if total == 0:
        raise ValueError("empty")
    for data in reader.end():
        if data != b"[DONE]":
            try:
                event = loads(data)
            except ValueError:
                return  # cut within an event
            yield event


async def _drain(response: aiohttp.ClientResponse) -> None:
    try:
        async with asyncio.timeout(_DRAIN_SECONDS):
            await response.content.readany()
    except (aiohttp.ClientError, OSError):
        pass  # TimeoutError too: then the connection is not used again


async def _json_of(response: aiohttp.ClientResponse) -> Any:
    pieces: list[bytes] = []
    total = 0
    async for piece in response.content.iter_any():
        total += len(piece)
        if total > MAX_BODY_BYTES:
            raise errors.over_bound("answer", "max_body_bytes", MAX_BODY_BYTES)
        pieces.append(piece)
    return orjson.loads(b"".join(pieces))


def _request_id(response: aiohttp.ClientResponse) -> str:
    headers = response.headers
    return (headers.get("x-request-id") or headers.get("request-id", ""))[:200]


def _unreached(error: Exception, stall_seconds: float) -> ProviderError:
    """Why there was no answer at all. What the error itself says may hold the address with its credentials."""
    if isinstance(error, aiohttp.SocketTimeoutError):
        return errors.stalled(stall_seconds)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        said = f"The model provider did not take the connection within {CONNECT_SECONDS:g} s."
    elif isinstance(error, aiohttp.ClientConnectorDNSError):
        said = "The model provider's name cannot be resolved."
    elif isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        said = "The model provider's certificate is not accepted."
    elif isinstance(error, aiohttp.ClientConnectorError):
        said = "The model provider refuses connections."
    else:
        said = "The model provider ended the connection without an answer."
    return errors.failure(errors.UNAVAILABLE, said)
