"""A model for the benches, as cheap as can be: `python -m bench.model_stub` prints its base URL.

The model's name says what it answers: `stream-COUNT-MICROSECONDS` so many chunks that far apart, each holding the time
of its birth (nanoseconds of the monotonic clock, which all processes of a machine share); `loop-COUNT` asks for one
`calculator` call after the other until the conversation holds so many, and then says so.
"""

import asyncio
import json
import sys
import time
from typing import Any

from aiohttp import web

CALL = {"name": "calculator", "arguments": '{"expression":"1 + 1"}'}


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One event of the stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "stub", "choices": [choice]}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


async def complete(request: web.Request) -> web.StreamResponse:
    """POST /v1/chat/completions, streamed."""
    asked = await request.json()
    kind, *numbers = asked["model"].split("-")
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if kind == "stream":
        count, apart = int(numbers[0]), int(numbers[1]) / 1e6
        due = time.monotonic()
        for _ in range(count):
            due += apart
            if apart:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
            await response.write(chunk({"content": f"{time.monotonic_ns()} "}))
        await response.write(chunk({}, "stop"))
    elif sum(m["role"] == "tool" for m in asked["messages"]) < int(numbers[0]):
        call = {"index": 0, "id": "call_1", "type": "function", "function": CALL}
        await response.write(chunk({"tool_calls": [call]}))
        await response.write(chunk({}, "tool_calls"))
    else:
        await response.write(chunk({"content": "That was the last one."}))
        await response.write(chunk({}, "stop"))
    usage = {"prompt_tokens": 10, "completion_tokens": 10, "total_tokens": 20}
    last = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "stub", "choices": []}
    await response.write(b"data: " + json.dumps({**last, "usage": usage}).encode() + b"\n\n")
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def main() -> None:
    """Serve until stopped."""
    app = web.Application(client_max_size=64 * 2**20)
    app.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    print(f"http://{host}:{port}/v1", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
