"""What stands before a provider: the breaker counts what the endpoint is to blame for, the cache costs nothing."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from hashlib import sha256

import pytest
from kfm_server.breaker import FAILURES, Breaker
from kfm_server.cache.in_process import InProcessCache
from kfm_server.cache.redis import RedisCache
from kfm_server.models import ModelSpec
from kfm_server.ports.models import (
    Embeddings,
    Message,
    ModelDelta,
    ModelProvider,
    ModelReply,
    ModelRequest,
    ProviderError,
    TokenUsage,
    ToolUse,
)
from kfm_server.providers import errors
from kfm_server.providers.guard import GuardedProvider
from kfm_server.providers.reply_cache import NAMESPACE, ReplyCache

from tests.support.redis_stub import RedisStub
from tests.unit.test_breaker import Clock

pytestmark = pytest.mark.requirement("P2")

HELLO = ModelRequest("small", (Message("user", "hello"),), tenant="t1")
ANSWER = ModelReply("good day", "stop", TokenUsage(3, 4), model="small-1", request_id="r1")


class Provider:
    """Answers or fails as it is told, or holds its answer back for ever."""

    def __init__(self, *answers: ModelReply | ProviderError | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.waiting = asyncio.Event()

    async def generate(self, request: ModelRequest) -> ModelReply:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            self.waiting.set()
            await asyncio.Event().wait()
        if isinstance(answer, ProviderError):
            raise answer
        assert answer is not None
        return answer

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelDelta | ModelReply]:
        reply = await self.generate(request)
        yield ModelDelta("text", reply.text)
        yield reply

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        await self.generate(HELLO)
        return Embeddings(((1.0,),), TokenUsage(1, 0))

    async def close(self) -> None: ...


def guarded(provider: ModelProvider, clock: Clock, **spec: float) -> GuardedProvider:
    made = ModelSpec("m", "scripted", "small", **spec)  # pyright: ignore[reportArgumentType]
    return GuardedProvider(provider, made, Breaker(clock), ReplyCache(InProcessCache(clock)))


async def fail(guard: GuardedProvider, request: ModelRequest = HELLO) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await guard.generate(request)
    return caught.value


@pytest.mark.parametrize(
    ("reason", "opens"),
    [
        (errors.UNAVAILABLE, True),
        (errors.RATE_LIMITED, False),
        (errors.REJECTED, False),
        (errors.OVERFLOW, False),
        (errors.REFUSED, False),
        (errors.INVALID, False),
    ],
)
async def test_only_an_endpoint_that_does_not_serve_opens_its_breaker(reason: str, opens: bool) -> None:
    provider = Provider(errors.failure(reason, "no"))
    guard = guarded(provider, Clock())
    for _ in range(FAILURES):
        await fail(guard)
    assert guard.breaker.state == ("open" if opens else "closed")


async def test_while_it_is_open_nothing_is_asked_and_the_error_says_when_to_come_back() -> None:
    provider = Provider(errors.failure(errors.UNAVAILABLE, "away"))
    guard = guarded(provider, Clock())
    for _ in range(FAILURES):
        await fail(guard)
    error = await fail(guard)
    assert provider.asked == FAILURES
    assert (error.reason, error.retryable, error.retry_after_ms) == (errors.UNAVAILABLE, True, 10_000)
    assert error.metadata == {"breaker": "open"} and error.usage is None
    assert "Last: " in error.message, "and how it failed"
    with pytest.raises(ProviderError):
        await guard.embed("small", ["x"])
    with pytest.raises(ProviderError):
        _ = [item async for item in guard.stream(HELLO)]
    assert provider.asked == FAILURES


@pytest.mark.parametrize("expired", [True, False], ids=["its time was over", "its caller left"])
async def test_a_call_that_is_cancelled_counts_only_when_its_time_was_over(expired: bool) -> None:
    provider = Provider(None)
    guard = guarded(provider, Clock())
    task = asyncio.create_task(guard.generate(replace(HELLO, expired=lambda: expired)))
    await asyncio.wait_for(provider.waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert guard.breaker.failures == (1 if expired else 0)


async def test_a_reader_that_leaves_a_stream_gives_the_probe_back() -> None:
    clock = Clock()
    provider = Provider(*[errors.failure(errors.UNAVAILABLE, "away")] * FAILURES, ANSWER)
    guard = guarded(provider, clock)
    for _ in range(FAILURES):
        await fail(guard)
    clock.seconds += 10
    async with aclosing(guard.stream(HELLO)) as pieces:
        await anext(pieces)
    assert guard.breaker.state == "half_open"
    assert (await guard.generate(HELLO)).text == "good day"
    assert guard.breaker.state == "closed"


async def test_an_equal_call_is_answered_from_memory_for_nothing_until_its_time() -> None:
    clock = Clock()
    provider = Provider(ANSWER)
    guard = guarded(provider, clock, cache_seconds=60.0)
    assert await guard.generate(HELLO) == ANSWER
    hit = await guard.generate(replace(HELLO, key="another", traceparent="00-1"))
    assert (hit.text, hit.usage, hit.cached, hit.request_id) == ("good day", TokenUsage(), True, "cache:r1")
    deltas = [item async for item in guard.stream(HELLO)]
    assert deltas == [ModelDelta("text", "good day"), hit]
    assert provider.asked == 1
    for other in (
        replace(HELLO, tenant="t2"),
        replace(HELLO, temperature=0.5),
        replace(HELLO, messages=(Message("user", "hallo"),)),
    ):
        assert not (await guard.generate(other)).cached
    clock.seconds += 60
    assert not (await guard.generate(HELLO)).cached


async def test_a_cached_reply_is_given_while_the_breaker_is_open() -> None:
    guard = guarded(Provider(ANSWER, errors.failure(errors.UNAVAILABLE, "away")), Clock(), cache_seconds=60.0)
    await guard.generate(HELLO)
    for _ in range(FAILURES + 1):
        await fail(guard, replace(HELLO, temperature=1.0))
    assert (await guard.generate(HELLO)).cached


async def test_without_the_setting_nothing_is_kept() -> None:
    provider = Provider(ANSWER)
    guard = guarded(provider, Clock())
    await guard.generate(HELLO)
    await guard.generate(HELLO)
    assert provider.asked == 2


@pytest.mark.parametrize(
    "reply",
    [
        replace(ANSWER, finish="length"),
        replace(ANSWER, finish="refused"),
        replace(ANSWER, text=" "),
    ],
)
async def test_a_reply_that_would_not_do_again_is_not_kept(reply: ModelReply) -> None:
    guard = guarded(Provider(reply), Clock(), cache_seconds=60.0)
    await guard.generate(HELLO)
    assert not (await guard.generate(HELLO)).cached


async def test_a_kept_reply_is_whole_and_one_that_cannot_be_read_or_reached_is_none() -> None:
    reply = replace(ANSWER, finish="tool_calls", tool_uses=(ToolUse("1", "f", '{"å": 1'),), reasoning="so")
    cache = ReplyCache(InProcessCache(Clock()))
    await cache.put("k", reply, 60)
    assert await cache.get("k") == replace(reply, usage=TokenUsage(), request_id="cache:r1", cached=True)
    await cache.put("broken", replace(ANSWER, text="\ud800"), 60)
    assert await cache.get("broken") is None

    kept = InProcessCache(Clock())
    for strange in (b"\xff", b"null", b'{"text": "x"}', b'{"usage": {}, "tool_uses": [], "of": "tomorrow"}'):
        await kept.put(NAMESPACE, sha256(b"k").hexdigest(), strange)
        assert await ReplyCache(kept).get("k") is None

    async with RedisStub(Clock()).serve() as gone:
        pass
    async with RedisCache.open(gone) as away:
        guard = GuardedProvider(
            Provider(ANSWER),
            ModelSpec("m", "scripted", "small", cache_seconds=60.0),
            Breaker(Clock()),
            ReplyCache(away),
        )
        assert [(await guard.generate(HELLO)).cached for _ in range(2)] == [False, False]


@pytest.mark.requirement("M3")
async def test_processes_with_one_redis_share_their_replies() -> None:
    clock = Clock()
    async with RedisStub(clock).serve() as url:
        for cached in (False, True):
            async with RedisCache.open(url, call_seconds=60) as cache:
                spec = ModelSpec("m", "scripted", "small", cache_seconds=60.0)
                guard = GuardedProvider(Provider(ANSWER), spec, Breaker(clock), ReplyCache(cache))
                assert (await guard.generate(HELLO)).cached == cached
