"""The development server: models from a script, and a journal of what they were asked.

It speaks OpenAI's `/v1/models`, `/v1/chat/completions` and `/v1/embeddings`, Anthropic's `/v1/messages` and Ollama's `/api/chat`.

`GET /_dev/requests` tells what was asked, `POST /_dev/reset` forgets it, `POST /_dev/script` changes the script.
"""

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

from kfm_server.providers.dev_server import openai
from kfm_server.providers.dev_server.checks import check_embed
from kfm_server.providers.dev_server.claude import Claude
from kfm_server.providers.dev_server.dialect import BadRequest, Dialect
from kfm_server.providers.dev_server.llama import Llama
from kfm_server.providers.player import NoRule, Played, Player
from kfm_server.providers.scripted import STATUS
from kfm_server.providers.scripts import Script, ScriptInvalid, parse_script

MAX_REQUEST_BYTES: Final = 64 * 1024 * 1024
"""Largest request."""
MAX_JOURNAL: Final = 1000
"""Requests that the journal shows; it counts all."""
MODELS: Final = ("scripted", "scripted-embed")
"""What `/v1/models` lists; every other name is answered too."""
DIALECTS: Final[dict[str, Dialect]] = {
    "/v1/chat/completions": openai.OpenAI(),
    "/v1/messages": Claude(),
    "/api/chat": Llama(),
}
"""By the path of their chats; on all others, OpenAI's is spoken."""


@dataclass
class Entry:
    """One request: no header that holds a key. ended: how its answer ended: `open`, `answered`, `cut`, or
    `left` by the caller.
    """

    path: str
    model: str
    idempotency_key: str
    traceparent: str
    body: Any
    status: int = 0
    ended: str = "open"


@dataclass
class DevServer:
    """The server's state: its script and what it was asked. An empty token lets everybody in."""

    script: Script
    token: str = ""
    journal: deque[Entry] = field(default_factory=lambda: deque[Entry](maxlen=MAX_JOURNAL))
    counts: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        self.player = Player(self.script)

    def application(self) -> web.Application:
        """As an aiohttp application."""
        application = web.Application(client_max_size=MAX_REQUEST_BYTES, middlewares=[self._guard])
        application.add_routes(
            [
                web.get("/v1/models", self._models),
                *(web.post(path, self._chat) for path in DIALECTS),
                web.post("/v1/embeddings", self._embed),
                web.get("/_dev/requests", self._requests),
                web.post("/_dev/reset", self._reset),
                web.post("/_dev/script", self._change),
            ]
        )
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("x-api-key") or request.headers.get("Authorization", "").removeprefix(
            "Bearer "
        )
        if self.token and not secrets.compare_digest(given.encode(), self.token.encode()):
            return _error(request, 401, "no key or a wrong one", code="invalid_api_key")
        try:
            return await handler(request)
        except web.HTTPException as refused:
            return _error(request, refused.status, refused.reason)

    async def _models(self, _: web.Request) -> web.StreamResponse:
        rows = [{"id": name, "object": "model", "created": 0, "owned_by": "kfm"} for name in MODELS]
        return _json({"object": "list", "data": rows})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        dialect = DIALECTS[request.path]
        entry, body = await self._noted(request)
        try:
            call = dialect.check(body)
            played = self.player.chat(dialect.request_of(call))
        except (BadRequest, NoRule) as error:
            return _refused(request, entry, error)
        streams, failure = dialect.streams(call), played.failure
        if failure is not None and (failure.after_chunks == 0 or not streams or failure.kind in STATUS):
            return await self._fail(request, entry, played)
        if not streams:
            await asyncio.sleep(played.delay_seconds)
            return _answered(entry, dialect.whole(played, call), played)
        response = web.StreamResponse(headers=_ids(played))
        response.content_type = dialect.stream_type
        try:
            return await self._stream(request, response, entry, played, dialect.frames(played, call))
        except asyncio.CancelledError:
            entry.ended = "left"
            raise
        except ConnectionError:
            entry.ended = "left"
            return response

    async def _stream(
        self,
        request: web.Request,
        response: web.StreamResponse,
        entry: Entry,
        played: Played,
        frames: Iterator[bytes],
    ) -> web.StreamResponse:
        entry.status = 200
        await response.prepare(request)
        failure, dialect = played.failure, DIALECTS[request.path]
        for count, frame in enumerate(frames, -1):
            if failure is not None and count >= failure.after_chunks:
                if failure.kind == "stall":
                    await _stall(entry)
                if failure.kind == "error_event":
                    await response.write(dialect.error_frame(failure.message, failure.code))
                elif failure.kind == "bad_json":
                    await response.write(dialect.nonsense)
                elif failure.kind == "cut":
                    await response.write(frame[: len(frame) // 2])
                    return _cut(request, entry, response)
                break
            if played.delay_seconds:
                await asyncio.sleep(played.delay_seconds)
            await response.write(frame)
        await response.write_eof()
        entry.ended = "answered"
        return response

    async def _fail(self, request: web.Request, entry: Entry, played: Played) -> web.StreamResponse:
        """A failure without any of the reply before it."""
        failure, dialect = played.failure, _dialect(request)
        assert failure is not None
        headers = _ids(played)
        entry.status, entry.ended = 200, "answered"
        match failure.kind:
            case "stall":
                await _stall(entry)
            case "cut":
                response = web.StreamResponse(headers=headers)
                response.content_type = "application/json"
                await response.prepare(request)
                await response.write(dialect.fragment)
                return _cut(request, entry, response)
            case "bad_json":
                return web.Response(
                    body=dialect.fragment + b"nonsense", content_type="application/json", headers=headers
                )
            case "wrong_type":
                return web.Response(text="<p>Welcome</p>", content_type="text/html", headers=headers)
            case "empty":
                return web.Response(body=b"", content_type="application/json", headers=headers)
            case _:
                pass
        status, code = STATUS.get(failure.kind, (failure.status, failure.code))
        entry.status = status
        if failure.retry_after:
            headers["Retry-After"] = failure.retry_after
        return _error(request, status, failure.message, code=code or None, headers=headers)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        entry, body = await self._noted(request)
        try:
            call = check_embed(body)
        except BadRequest as error:
            return _refused(request, entry, error)
        played, vectors = self.player.embed(call["model"], call["input"])
        if played.failure is not None:
            return await self._fail(request, entry, played)
        return _answered(entry, openai.embeddings(vectors, played.usage, call["model"]), played)

    async def _noted(self, request: web.Request) -> tuple[Entry, Any]:
        """The request's entry in the journal, and its body; a body that is no JSON is None."""
        try:
            body: Any = orjson.loads(await request.read())
        except ValueError:
            body = None
        model = body.get("model") if isinstance(body, dict) else None
        model = model if isinstance(model, str) else ""
        headers = request.headers
        entry = Entry(
            request.path, model, headers.get("Idempotency-Key", ""), headers.get("traceparent", ""), body
        )
        self.journal.append(entry)
        self.counts[model] += 1
        return entry, body

    async def _requests(self, _: web.Request) -> web.StreamResponse:
        return _json(
            {
                "count": self.counts.total(),
                "by_model": dict(self.counts),
                "requests": [asdict(entry) for entry in self.journal],
            }
        )

    async def _reset(self, _: web.Request) -> web.StreamResponse:
        self.journal.clear()
        self.counts.clear()
        self.player.reset()
        return _json({})

    async def _change(self, request: web.Request) -> web.StreamResponse:
        try:
            self.player.reset(parse_script(orjson.loads(await request.read())))
        except (ScriptInvalid, ValueError) as error:
            return _error(request, 400, str(error))
        return _json({})


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(value), status=status, content_type="application/json", headers=headers
    )


def _dialect(request: web.Request) -> Dialect:
    return DIALECTS.get(request.path, DIALECTS["/v1/chat/completions"])


def _ids(played: Played) -> dict[str, str]:
    """The request's id under the names that providers have for it."""
    return {"x-request-id": played.request_id, "request-id": played.request_id}


def _error(
    request: web.Request,
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: dict[str, str] | None = None,
) -> web.Response:
    return _json(_dialect(request).error(status, message, param, code), status, headers)


def _refused(request: web.Request, entry: Entry, error: BadRequest | NoRule) -> web.Response:
    entry.status, entry.ended = 400, "answered"
    if isinstance(error, NoRule):
        return _error(request, 400, str(error), code="no_rule")
    return _error(request, 400, error.message, error.param, error.code)


def _answered(entry: Entry, body: Any, played: Played) -> web.Response:
    entry.status, entry.ended = 200, "answered"
    return _json(body, headers=_ids(played))


async def _stall(entry: Entry) -> None:
    """Hold the connection until the caller leaves."""
    entry.ended = "open"
    try:
        await asyncio.Event().wait()
    finally:
        entry.ended = "left"


def _cut(request: web.Request, entry: Entry, response: web.StreamResponse) -> web.StreamResponse:
    """End the connection where it stands."""
    entry.ended = "cut"
    if request.transport is not None:
        request.transport.close()
    return response


async def serve(
    server: DevServer, host: str, port: int, listening: Callable[[str], None], stop: asyncio.Event
) -> None:
    """Serve until `stop`; `listening` is told the base URL. Raises OSError if it cannot listen there."""
    # A caller that leaves cancels its handler: that is how a stall ends.
    runner = web.AppRunner(
        server.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.5
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0]
        shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
        listening(f"http://{shown}:{bound[1]}/v1")
        await stop.wait()
    finally:
        await runner.cleanup()
