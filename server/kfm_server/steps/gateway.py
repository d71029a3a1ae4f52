"""Calls of models from outside of turns: with the limits, errors, breakers, cache, prices and metrics that steps have."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from kfm.type.v1 import type_pb2 as types

from kfm_server import metrics
from kfm_server.models import ModelSpec
from kfm_server.ports.gateway import Answer, Lost
from kfm_server.ports.models import (
    Embeddings,
    ModelDelta,
    ModelProvider,
    ModelReply,
    ModelRequest,
    ProviderError,
    digest_of,
    reply_bytes,
)
from kfm_server.recipe import FailedCall
from kfm_server.steps.accounting import count_call, so_far, used_by
from kfm_server.steps.fallback import is_to_blame, next_model
from kfm_server.steps.flights import Flights
from kfm_server.steps.model_step import ModelLookup, chain_of


class Gateway:
    """See ports.gateway.ModelGateway."""

    def __init__(self, models: ModelLookup, now: Callable[[], float] = time.monotonic) -> None:
        """`models`: a configured model by name, raising LookupError; `now`: seconds, by which kept answers age."""
        self._models = models
        self._flights = Flights[Answer](
            now,
            lambda answer: reply_bytes(answer.reply),
            lambda event, _: metrics.MODEL_FLIGHTS.labels(event).inc(),
        )

    async def generate(self, model: str, request: ModelRequest) -> Answer:
        """One reply. Calls with the same `request.key` are one. Raises LookupError, ProviderError, KeyTaken, FlightsFull."""
        async with aclosing(self._flown(model, request, streams=False)) as pieces:
            async for piece in pieces:
                if isinstance(piece, Answer):
                    return piece
        raise AssertionError("a call ends with its answer")

    async def stream(self, model: str, request: ModelRequest) -> AsyncGenerator[ModelDelta | Answer]:
        """The reply in pieces, then whole; a call that fails after its first piece fails the stream. Raises as `generate`.

        Who meets a call with the same key gets its reply in one piece.
        """
        async with aclosing(self._flown(model, request, streams=True)) as pieces:
            async for piece in pieces:
                yield piece

    async def _flown(
        self, model: str, request: ModelRequest, *, streams: bool
    ) -> AsyncGenerator[ModelDelta | Answer]:
        """One call for all that have its key."""
        if not request.key:
            async with aclosing(self._asked(model, request, streams=streams)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        key, digest = f"{request.tenant}\n{request.key}", f"{model}\n{digest_of(request)}"
        async with self._flights.flight(key, digest) as flight:
            if flight.answer is not None:
                if flight.answer.reply.text:
                    yield ModelDelta("text", flight.answer.reply.text)
                yield flight.answer
                return
            async with aclosing(self._asked(model, request, streams=streams)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Answer):
                        flight.answer = piece
                    yield piece

    async def _asked(
        self, model: str, request: ModelRequest, *, streams: bool
    ) -> AsyncGenerator[ModelDelta | Answer]:
        """Along the chain, each model once: who asked is the one to retry. `streams`: pieces are told as they come."""
        chain = chain_of(self._models, model)
        specs = [spec for _, spec in chain.values()]
        failed: list[FailedCall] = []
        lost: list[Lost] = []
        spec = specs[0]
        while True:
            if spec.name != model:
                metrics.MODEL_FALLBACKS.labels(model, spec.name).inc()
            began = False
            try:
                async with aclosing(_one(chain[spec.name][0], spec, _for(spec, request))) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, Answer):
                            yield replace(piece, lost=tuple(lost))
                        elif streams:
                            began = True
                            yield piece
                return
            except _InVain as in_vain:
                lost.append(in_vain.lost)
            error = lost[-1].error
            call = FailedCall(
                spec.name, error.reason, error.metadata.get("http_status", ""), error.retry_after_ms
            )
            failed.append(call)
            other = next_model(specs, failed, {one.model for one in lost})
            if began or other is None or not is_to_blame(call):
                cost = sum(one.usage.cost_nanos for one in lost if one.usage is not None)
                error.metadata["cost_nanos"] = str(cost)
                raise error
            spec = other

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[Embeddings, types.Usage]:
        """A vector of each text, and what that cost. Raises LookupError, ProviderError."""
        provider, spec = self._models(model)
        began = time.perf_counter()
        usage: types.Usage | None = None
        status = "failed"
        try:
            async with asyncio.timeout(spec.timeout_seconds):
                found = await provider.embed(spec.model, texts)
            usage, status = used_by(found.usage, spec), "succeeded"
            return found, usage
        except TimeoutError:
            raise _late(spec) from None
        except ProviderError as error:
            status = "refused" if error.metadata.get("breaker") == "open" else "failed"
            error.metadata["model"] = spec.name
            raise
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        finally:
            if status != "refused":
                count_call(spec.name, status, usage, time.perf_counter() - began)


class _InVain(Exception):
    """One call failed."""

    def __init__(self, lost: Lost) -> None:
        super().__init__(lost.error.message)
        self.lost = lost


async def _one(
    provider: ModelProvider, spec: ModelSpec, request: ModelRequest
) -> AsyncGenerator[ModelDelta | Answer]:
    """One call of one model within its time, counted however it ends. Raises _InVain."""
    now = asyncio.get_running_loop().time
    began, said = now(), list[str]()
    until = began + spec.timeout_seconds
    request = replace(request, expired=lambda: now() >= until)
    status, usage = "cancelled", None
    try:
        async with aclosing(provider.stream(request)) as pieces:
            while True:
                async with asyncio.timeout_at(until):
                    piece = await anext(pieces, None)
                if piece is None:
                    raise ProviderError(
                        "REASON_PROVIDER_UNAVAILABLE", "The model's answer was cut off.", True
                    )
                if isinstance(piece, ModelReply):
                    usage = types.Usage() if piece.cached else used_by(piece.usage, spec)
                    status = "cached" if piece.cached else "succeeded"
                    yield Answer(piece, spec.name, usage)
                    return
                said.append(piece.text)
                yield piece
    except TimeoutError:
        usage, status = used_by(so_far(request, said), spec), "failed"
        raise _InVain(Lost(spec.name, _late(spec), usage)) from None
    except ProviderError as error:
        status = "refused" if error.metadata.get("breaker") == "open" else "failed"
        usage = used_by(error.usage, spec) if error.usage is not None else None
        error.metadata["model"] = spec.name
        raise _InVain(Lost(spec.name, error, usage)) from None
    finally:
        if status == "cancelled":
            usage = used_by(so_far(request, said), spec)
        if status not in ("cached", "refused"):  # of those, nobody was asked
            count_call(spec.name, status, usage, now() - began)


def _for(spec: ModelSpec, request: ModelRequest) -> ModelRequest:
    """The request as this model takes it."""
    most = spec.max_output_tokens
    return replace(
        request,
        model=spec.model,
        max_output_tokens=min(request.max_output_tokens or most, most),
        temperature=spec.temperature if request.temperature is None else request.temperature,
    )


def _late(spec: ModelSpec) -> ProviderError:
    message = f"The model {spec.name} did not answer within {spec.timeout_seconds:g} s."
    return ProviderError(
        "REASON_PROVIDER_UNAVAILABLE", message, True, metadata={"limit": "timeout", "model": spec.name}
    )
