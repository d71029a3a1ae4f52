"""TurnService: translates between its messages and the runtime. Holds no state."""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Protocol

from google.protobuf.message import Message
from kfm.catalogue.errors import Draining, Internal
from kfm.event.v1 import envelope_pb2, turn_events_pb2
from kfm.turn.v1 import turn_pb2, turn_service_pb2

from kfm_server.context import ExecutionContext
from kfm_server.doors.grpc.drain import Drain
from kfm_server.doors.grpc.interceptor import Call
from kfm_server.doors.grpc.validation import check_json, check_schema, check_text, invalid

_pb = turn_service_pb2
_Verb = turn_events_pb2.TurnVerb
_DEFAULT_WAIT_S = 30.0
_DEFAULT_PAGE = 50
_DEFAULT_EVENTS = 200
_DEFAULT_BYTES = 262_144
# Sequences are bigint in the journal; nothing lies beyond.
_LAST_SEQUENCE = 2**63 - 1
# An answer that leaves this long before the caller's deadline still reaches it.
_MARGIN_S = 0.1


TurnRows = list[turn_pb2.Turn]
Envelopes = list[envelope_pb2.Envelope]
Updates = list[turn_pb2.TurnUpdate]


class Submitted(Protocol):
    """What the runtime answers to a new turn."""

    @property
    def turn_id(self) -> str: ...
    @property
    def session_id(self) -> str: ...
    @property
    def state(self) -> "turn_pb2.TurnState": ...


class Turns(Protocol):
    """The runtime as this door sees it: TurnManager. All methods raise KfmError and nothing else on purpose."""

    async def submit(
        self, ctx: ExecutionContext, spec: turn_pb2.TurnSpec, key: str, digest: bytes, rpc: str
    ) -> Submitted: ...
    def run(
        self, ctx: ExecutionContext, spec: turn_pb2.TurnSpec, key: str, digest: bytes, rpc: str
    ) -> AsyncIterator[Updates]: ...
    async def control(
        self,
        ctx: ExecutionContext,
        turn_id: str,
        control: turn_events_pb2.TurnControlEvent,
        key: str,
        digest: bytes,
        rpc: str,
    ) -> None: ...
    async def fork(
        self,
        ctx: ExecutionContext,
        turn_id: str,
        step_key: str,
        retry: bool,
        key: str,
        digest: bytes,
        rpc: str,
    ) -> Submitted: ...
    async def get(self, ctx: ExecutionContext, turn_id: str) -> turn_pb2.Turn: ...
    async def output(self, ctx: ExecutionContext, turn_id: str, step_key: str) -> bytes: ...
    async def list(
        self,
        ctx: ExecutionContext,
        session_id: str,
        state: "turn_pb2.TurnState",
        page_size: int,
        page_token: str,
    ) -> tuple[TurnRows, str]: ...
    async def events(
        self, ctx: ExecutionContext, turn_id: str, after: int, limit: int
    ) -> tuple[Envelopes, bool]: ...
    def watch(
        self, ctx: ExecutionContext, turn_id: str, after: int, *, at_owner: bool = False
    ) -> AsyncIterator[Updates]: ...
    async def wait(self, ctx: ExecutionContext, turn_id: str, timeout_s: float) -> turn_pb2.Turn: ...
    async def explain(self, ctx: ExecutionContext, turn_id: str) -> turn_service_pb2.ExplainTurnResponse: ...


_Control = (
    turn_service_pb2.CancelTurnRequest
    | turn_service_pb2.PauseTurnRequest
    | turn_service_pb2.ResumeTurnRequest
    | turn_service_pb2.AnswerStepRequest
    | turn_service_pb2.SettleStepRequest
)


class TurnService:
    """The bodies of kfm.turn.v1.TurnService, by the names of its RPCs."""

    SERVICE = "kfm.turn.v1.TurnService"

    def __init__(self, turns: Turns, drain: Drain) -> None:
        """`drain` ends streams and waits when the server stops."""
        self._turns = turns
        self._drain = drain

    async def SubmitTurn(self, call: Call, request: _pb.SubmitTurnRequest) -> _pb.SubmitTurnResponse:
        """Durable when it answers."""
        key, digest = _take_spec(request)
        submitted = await self._turns.submit(call.ctx, request.turn, key, digest, "SubmitTurn")
        return _pb.SubmitTurnResponse(
            turn_id=submitted.turn_id, session_id=submitted.session_id, state=submitted.state
        )

    async def RunTurn(
        self, call: Call, request: _pb.RunTurnRequest
    ) -> AsyncGenerator[_pb.RunTurnResponse, None]:
        """Submit, then follow; a client that leaves changes nothing."""
        key, digest = _take_spec(request)
        started = self._turns.run(call.ctx, request.turn, key, digest, "RunTurn")
        async with aclosing(self._follow(started, 0)) as batches:
            async for updates in batches:
                yield _pb.RunTurnResponse(updates=updates)

    async def WatchTurn(
        self, call: Call, request: _pb.WatchTurnRequest
    ) -> AsyncGenerator[_pb.WatchTurnResponse, None]:
        """Replay, then follow."""
        after = min(request.after_sequence, _LAST_SEQUENCE)
        watched = self._turns.watch(call.ctx, request.turn_id, after, at_owner=call.at_owner)
        async with aclosing(self._follow(watched, after)) as batches:
            async for updates in batches:
                yield _pb.WatchTurnResponse(updates=updates)

    async def WaitTurn(self, call: Call, request: _pb.WaitTurnRequest) -> _pb.WaitTurnResponse:
        """Wait no longer than asked for, and no longer than the caller does."""
        bound = _DEFAULT_WAIT_S
        if request.HasField("timeout"):
            bound = request.timeout.seconds + request.timeout.nanos / 1e9
        if call.remaining_s is not None:
            bound = min(bound, max(0.0, call.remaining_s - _MARGIN_S))
        turn = await self._drain.wait(lambda: self._turns.wait(call.ctx, request.turn_id, bound))
        return _pb.WaitTurnResponse(turn=turn)

    async def GetTurn(self, call: Call, request: _pb.GetTurnRequest) -> _pb.GetTurnResponse:
        """The turn as it is now."""
        return _pb.GetTurnResponse(turn=await self._turns.get(call.ctx, request.turn_id))

    async def ReadStepOutput(
        self, call: Call, request: _pb.ReadStepOutputRequest
    ) -> _pb.ReadStepOutputResponse:
        """A part of a step's output. StepNotFound, and StateConflict before it succeeded."""
        body = await self._turns.output(call.ctx, request.turn_id, request.step_key)
        end = request.offset + (request.max_bytes or _DEFAULT_BYTES)
        return _pb.ReadStepOutputResponse(
            data=body[request.offset : end],
            total_bytes=len(body),
            digest=hashlib.sha256(body).hexdigest(),
        )

    async def ListTurns(self, call: Call, request: _pb.ListTurnsRequest) -> _pb.ListTurnsResponse:
        """A page."""
        check_text("page_token", request.page_token)
        turns, token = await self._turns.list(
            call.ctx,
            request.session_id,
            request.state,
            request.page_size or _DEFAULT_PAGE,
            request.page_token,
        )
        return _pb.ListTurnsResponse(turns=turns, next_page_token=token)

    async def ListTurnEvents(
        self, call: Call, request: _pb.ListTurnEventsRequest
    ) -> _pb.ListTurnEventsResponse:
        """A run of events."""
        after = min(request.after_sequence, _LAST_SEQUENCE)
        limit = request.page_size or _DEFAULT_EVENTS
        events, more = await self._turns.events(call.ctx, request.turn_id, after, limit)
        return _pb.ListTurnEventsResponse(events=events, more=more)

    async def CancelTurn(self, call: Call, request: _pb.CancelTurnRequest) -> _pb.CancelTurnResponse:
        """End it."""
        control = turn_events_pb2.TurnControlEvent(verb=_Verb.TURN_VERB_CANCEL, reason=request.reason)
        return _pb.CancelTurnResponse(turn=await self._control(call, request, control, "CancelTurn"))

    async def PauseTurn(self, call: Call, request: _pb.PauseTurnRequest) -> _pb.PauseTurnResponse:
        """Start no more steps."""
        control = turn_events_pb2.TurnControlEvent(verb=_Verb.TURN_VERB_PAUSE, reason=request.reason)
        return _pb.PauseTurnResponse(turn=await self._control(call, request, control, "PauseTurn"))

    async def ResumeTurn(self, call: Call, request: _pb.ResumeTurnRequest) -> _pb.ResumeTurnResponse:
        """Go on."""
        control = turn_events_pb2.TurnControlEvent(verb=_Verb.TURN_VERB_RESUME, reason=request.reason)
        return _pb.ResumeTurnResponse(turn=await self._control(call, request, control, "ResumeTurn"))

    async def AnswerStep(self, call: Call, request: _pb.AnswerStepRequest) -> _pb.AnswerStepResponse:
        """Hand a person's answer to a HUMAN step."""
        check_json("output_json", request.output_json)
        control = turn_events_pb2.TurnControlEvent(
            verb=_Verb.TURN_VERB_ANSWER, step_key=request.step_key, output_json=request.output_json
        )
        return _pb.AnswerStepResponse(turn=await self._control(call, request, control, "AnswerStep"))

    async def SettleStep(self, call: Call, request: _pb.SettleStepRequest) -> _pb.SettleStepResponse:
        """Hand a person's verdict to a step of unknown outcome."""
        if request.output_json:
            if request.settle_as != turn_events_pb2.SETTLE_AS_SUCCEEDED:
                sentence = "only a step that is settled as succeeded has an output"
                raise invalid([("output_json", "settle_as", sentence)])
            check_json("output_json", request.output_json)
        control = turn_events_pb2.TurnControlEvent(
            verb=_Verb.TURN_VERB_SETTLE,
            step_key=request.step_key,
            settle_as=request.settle_as,
            output_json=request.output_json,
            reason=request.reason,
        )
        return _pb.SettleStepResponse(turn=await self._control(call, request, control, "SettleStep"))

    async def RetryTurn(self, call: Call, request: _pb.RetryTurnRequest) -> _pb.RetryTurnResponse:
        """A new turn from the failed step, with the same keys."""
        key, digest = take_key(request)
        new = await self._turns.fork(call.ctx, request.turn_id, "", True, key, digest, "RetryTurn")
        return _pb.RetryTurnResponse(turn_id=new.turn_id, session_id=new.session_id)

    async def ForkTurn(self, call: Call, request: _pb.ForkTurnRequest) -> _pb.ForkTurnResponse:
        """A new turn from a step, with keys of its own."""
        key, digest = take_key(request)
        new = await self._turns.fork(
            call.ctx, request.turn_id, request.step_key, False, key, digest, "ForkTurn"
        )
        return _pb.ForkTurnResponse(turn_id=new.turn_id, session_id=new.session_id)

    async def ExplainTurn(self, call: Call, request: _pb.ExplainTurnRequest) -> _pb.ExplainTurnResponse:
        """What it waits for."""
        return await self._turns.explain(call.ctx, request.turn_id)

    async def _control(
        self, call: Call, request: _Control, control: turn_events_pb2.TurnControlEvent, rpc: str
    ) -> turn_pb2.Turn:
        key, digest = take_key(request)
        control.principal = call.ctx.principal
        await self._turns.control(call.ctx, request.turn_id, control, key, digest, rpc)
        return await self._turns.get(call.ctx, request.turn_id)

    async def _follow(self, source: AsyncIterator[Updates], after: int) -> AsyncGenerator[Updates, None]:
        last = after
        batches = aiter(source)
        try:
            while True:
                updates = await self._drain.wait(lambda: anext(batches, None))
                if updates is None:
                    return
                last = _last_sequence(updates, last)
                yield updates
                updates.clear()  # an idle stream keeps nothing of what it has sent
        except Draining:
            reconnect = turn_pb2.Reconnect(reason="The server is stopping.", after_sequence=last)
            yield [turn_pb2.TurnUpdate(reconnect=reconnect)]
        finally:
            if isinstance(batches, AsyncGenerator):
                await batches.aclose()


def _last_sequence(updates: Updates, before: int) -> int:
    events = (update.event.sequence for update in reversed(updates) if update.HasField("event"))
    return next(events, before)


def _take_spec(request: _pb.SubmitTurnRequest | _pb.RunTurnRequest) -> tuple[str, bytes]:
    for index, part in enumerate(request.turn.input):
        if part.WhichOneof("content") == "data_json":
            check_json(f"turn.input[{index}].data_json", part.data_json)
    if not any(part.data_json or part.text.strip() for part in request.turn.input):
        raise invalid([("turn.input", "input.blank", "says nothing: no part holds more than white space")])
    if request.turn.output_schema_json:
        check_schema("turn.output_schema_json", request.turn.output_schema_json)
    return take_key(request)


def take_key(request: Message) -> tuple[str, bytes]:
    """The idempotency key, and the digest of the rest of the request; the key is cleared from it."""
    key = getattr(request, "idempotency_key", None)
    if not isinstance(key, str):
        raise Internal(f"{request.DESCRIPTOR.full_name} has no idempotency key")
    request.ClearField("idempotency_key")
    return key, hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
