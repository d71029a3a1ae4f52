"""What a model call costs its client: our adapters against what they stand on, interleaved in one run.

The stub is the development server in a process of its own; the prompt has 100 words, a stream 50 chunks. CPU is this
process's (user and system), so nothing else runs in it. One JSON line per measurement, then the ratios and goals.

    python -m bench.models [--rounds 5] [--calls 200]
"""

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from kfm_server.ports.models import Message, ModelRequest
from kfm_server.providers import litellm_adapter
from kfm_server.providers.litellm_adapter import LiteLLMProvider
from kfm_server.providers.openai_http import OpenAIProvider

from bench.processes import Child, environment

PROMPT = " ".join(f"word{i}" for i in range(100))
CHUNKS = 50
SCRIPT = {"rules": [{"reply": {"text": "".join(f"c{i:02} " for i in range(CHUNKS)), "chunk_chars": 4}}]}
REQUEST = ModelRequest("small", (Message("user", PROMPT),), key="bench")
Call = Callable[[], Awaitable[int]]
"""One call; answers the chunks of text it has seen."""


def aiohttp_calls(session: aiohttp.ClientSession, url: str) -> tuple[Call, Call]:
    """The least that one can do: post, read lines, parse each."""
    body = {"model": "small", "messages": [{"role": "user", "content": PROMPT}]}

    async def whole() -> int:
        async with session.post(f"{url}/chat/completions", json=body) as response:
            assert (await response.json())["choices"][0]["message"]["content"]
        return 1

    async def stream() -> int:
        seen = 0
        async with session.post(f"{url}/chat/completions", json={**body, "stream": True}) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    seen += bool(json.loads(line[6:])["choices"][0]["delta"].get("content"))
        return seen

    return whole, stream


def our_calls(provider: OpenAIProvider | LiteLLMProvider, model: str) -> tuple[Call, Call]:
    """Through our port."""
    request = ModelRequest(model, REQUEST.messages, key=REQUEST.key)

    async def whole() -> int:
        assert (await provider.generate(request)).text
        return 1

    async def stream() -> int:
        return sum([1 async for _ in provider.stream(request)]) - 1

    return whole, stream


def litellm_calls(litellm: Any, url: str) -> tuple[Call, Call]:
    """Bare acompletion, its stream read to the end."""
    given: dict[str, Any] = {
        "model": "openai/small",
        "messages": [{"role": "user", "content": PROMPT}],
        "api_base": url,
        "api_key": "none",
    }

    async def whole() -> int:
        assert (await litellm.acompletion(**given)).choices[0].message.content
        return 1

    async def stream() -> int:
        chunks: AsyncGenerator[Any] = await litellm.acompletion(
            **given, stream=True, stream_options={"include_usage": True}
        )
        return sum([1 async for chunk in chunks if chunk.choices and chunk.choices[0].delta.content])

    return whole, stream


def cpu() -> float:
    """Seconds of CPU this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def window(call: Call, calls: int, expected: int) -> tuple[float, float]:
    """CPU microseconds a call, and the median of its milliseconds."""
    times: list[float] = []
    for _ in range(max(3, calls // 10)):
        await call()
    before = cpu()
    for _ in range(calls):
        begun = time.perf_counter()
        assert await call() == expected
        times.append(time.perf_counter() - begun)
    return (cpu() - before) / calls * 1e6, statistics.median(times) * 1e3


async def measure(url: str, rounds: int, calls: int) -> dict[str, dict[str, list[float]]]:
    """The rounds: every client once in each, whole and streamed."""
    litellm = await litellm_adapter.load()
    found: dict[str, dict[str, list[float]]] = {}
    async with aiohttp.ClientSession() as session:
        direct, through = OpenAIProvider(url), LiteLLMProvider(url)
        clients = {
            "aiohttp": aiohttp_calls(session, url),
            "kfm-direct": our_calls(direct, "small"),
            "litellm": litellm_calls(litellm, url),
            "kfm-litellm": our_calls(through, "openai/small"),
        }
        for _ in range(rounds):
            for name, (whole, stream) in clients.items():
                count = calls if "litellm" not in name else max(10, calls // 2)
                row = found.setdefault(name, {"whole": [], "whole_ms": [], "stream": [], "stream_ms": []})
                for kind, call, expected in (("whole", whole, 1), ("stream", stream, CHUNKS)):
                    used, median_ms = await window(call, count, expected)
                    row[kind].append(used)
                    row[f"{kind}_ms"].append(median_ms)
        await direct.close()
    return found


def report(found: dict[str, dict[str, list[float]]]) -> None:
    """The lines, and the ratios."""
    per_chunk: dict[str, float] = {}
    medians = {name: {k: statistics.median(v) for k, v in row.items()} for name, row in found.items()}
    for name, row in medians.items():
        per_chunk[name] = (row["stream"] - row["whole"]) / CHUNKS
        line = {
            "name": name,
            "call_cpu_us": round(row["whole"], 1),
            "call_ms": round(row["whole_ms"], 3),
            "stream_cpu_us": round(row["stream"], 1),
            "stream_ms": round(row["stream_ms"], 3),
            "chunk_cpu_us": round(per_chunk[name], 2),
            "call_cpu_min": round(min(found[name]["whole"]), 1),
            "call_cpu_max": round(max(found[name]["whole"]), 1),
            "rounds": len(found[name]["whole"]),
        }
        print(json.dumps(line), flush=True)
    ours, theirs = medians["kfm-litellm"], medians["litellm"]
    goals = (
        ("direct adapter, CPU us a call", medians["kfm-direct"]["whole"], 500.0),
        ("direct adapter, CPU us a chunk", per_chunk["kfm-direct"], 30.0),
        ("LiteLLM path against bare LiteLLM, a call", ours["whole"] / theirs["whole"], 1.1),
        ("LiteLLM path against bare LiteLLM, a stream", ours["stream"] / theirs["stream"], 1.1),
    )
    for text, reached, goal in goals:
        print(f"{text:<48}{reached:>9.2f}  <= {goal:<6g} {'met' if reached <= goal else 'MISSED'}")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=200)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kfm-bench-") as home:
        script, log = Path(home, "script.json"), Path(home, "model-server.log")
        script.write_text(json.dumps(SCRIPT))
        kfm = Path(sys.executable).with_name("kfm")
        stub = Child(
            [kfm, "model-server", "--address", "127.0.0.1:0", "--script", script], log, env=environment()
        )
        try:
            report(asyncio.run(measure(stub.address(), given.rounds, given.calls)))
        finally:
            stub.close()


if __name__ == "__main__":
    main()
