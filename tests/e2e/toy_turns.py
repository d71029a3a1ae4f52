"""A tiny program behind the doors: real messages, no engine. For tests of the doors and of the SDK."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from google.protobuf import any_pb2
from kfm.admin.v1 import admin_service_pb2
from kfm.catalogue.errors import DeadLetterNotFound, IdempotencyConflict, TurnFinished, TurnNotFound
from kfm.event.v1 import envelope_pb2, turn_events_pb2
from kfm.turn.v1 import turn_pb2, turn_service_pb2
from kfm_server.context import ExecutionContext
from kfm_server.doors.grpc.turn_service import Envelopes, TurnRows, Updates

State = turn_pb2.TurnState


@dataclass(frozen=True)
class Accepted:
    """What submit answers."""

    turn_id: str
    session_id: str
    state: "turn_pb2.TurnState" = State.TURN_STATE_RUNNING


class ToyTurns:
    """Echoes: a turn's answer is its input. Turns whose text is `wait` end when `finish` is called."""

    def __init__(self) -> None:
        self.turns: dict[str, list[envelope_pb2.Envelope]] = {}
        self.specs: dict[str, turn_pb2.TurnSpec] = {}
        self.keys: dict[str, tuple[bytes, str]] = {}
        self.changed = asyncio.Condition()
        self.fail: list[BaseException] = []
        self.watches: list[int] = []
        self.cut_after = 0
        self.batch = 1
        self.cuts: list[BaseException] = []
        self.waited = asyncio.Event()

    def _fail_if_told(self) -> None:
        if self.fail:
            raise self.fail.pop(0)

    async def submit(
        self, ctx: ExecutionContext, spec: turn_pb2.TurnSpec, key: str, digest: bytes, rpc: str
    ) -> Accepted:
        known = self.keys.get(key)
        if known is not None and known[0] != digest:
            raise IdempotencyConflict
        if known is None:
            turn_id = f"turn_{len(self.turns):04d}"
            self.keys[key] = (digest, turn_id)
            self.specs[turn_id] = spec
            self.turns[turn_id] = []
            await self.add(turn_id, turn_events_pb2.TurnEvent(principal=ctx.principal, input=spec.input))
            if spec.input[0].text != "wait":
                await self.finish(turn_id)
            known = self.keys[key]
        self._fail_if_told()
        return Accepted(known[1], "ses_toy")

    async def add(
        self, turn_id: str, event: turn_events_pb2.TurnEvent | turn_events_pb2.TurnStateEvent
    ) -> None:
        name = type(event).__name__
        events = self.turns[turn_id]
        async with self.changed:
            events.append(
                envelope_pb2.Envelope(
                    event_id=f"{turn_id}.{len(events) + 1}",
                    type=f"{name}.v1",
                    turn_id=turn_id,
                    session_id="ses_toy",
                    sequence=len(events) + 1,
                    payload=any_pb2.Any(
                        type_url=f"type.googleapis.com/kfm.event.v1.{name}", value=event.SerializeToString()
                    ),
                )
            )
            self.changed.notify_all()

    async def finish(
        self, turn_id: str, outcome: turn_events_pb2.Outcome = turn_events_pb2.Outcome.OUTCOME_SUCCEEDED
    ) -> None:
        started = turn_events_pb2.TurnStateEvent(change=turn_events_pb2.TURN_CHANGE_STARTED)
        await self.add(turn_id, started)
        done = turn_events_pb2.TurnStateEvent(
            change=turn_events_pb2.TURN_CHANGE_FINISHED, outcome=outcome, output=self.specs[turn_id].input
        )
        await self.add(turn_id, done)

    async def run(
        self, ctx: ExecutionContext, spec: turn_pb2.TurnSpec, key: str, digest: bytes, rpc: str
    ) -> AsyncIterator[Updates]:
        turn = await self.submit(ctx, spec, key, digest, rpc)
        async for updates in self.watch(ctx, turn.turn_id, 0):
            yield updates

    async def control(
        self,
        ctx: ExecutionContext,
        turn_id: str,
        control: turn_events_pb2.TurnControlEvent,
        key: str,
        digest: bytes,
        rpc: str,
    ) -> None:
        turn = await self.get(ctx, turn_id)
        if turn.state == State.TURN_STATE_FINISHED:
            raise TurnFinished(metadata={"turn_id": turn_id})
        if control.verb == turn_events_pb2.TURN_VERB_CANCEL:
            await self.finish(turn_id, turn_events_pb2.Outcome.OUTCOME_CANCELLED)

    async def fork(
        self,
        ctx: ExecutionContext,
        turn_id: str,
        step_key: str,
        retry: bool,
        key: str,
        digest: bytes,
        rpc: str,
    ) -> Accepted:
        await self.get(ctx, turn_id)
        return await self.submit(ctx, self.specs[turn_id], key, digest, rpc)

    async def get(self, ctx: ExecutionContext, turn_id: str) -> turn_pb2.Turn:
        self._fail_if_told()
        events = self.turns.get(turn_id)
        if events is None:
            raise TurnNotFound(metadata={"turn_id": turn_id})
        turn = turn_pb2.Turn(
            turn_id=turn_id, session_id="ses_toy", state=State.TURN_STATE_RUNNING, last_sequence=len(events)
        )
        turn.spec.CopyFrom(self.specs[turn_id])
        if len(events) == 3:
            last = turn_events_pb2.TurnStateEvent.FromString(events[-1].payload.value)
            turn.state, turn.outcome = State.TURN_STATE_FINISHED, last.outcome
            turn.output.extend(last.output)
        return turn

    async def list(
        self,
        ctx: ExecutionContext,
        session_id: str,
        state: "turn_pb2.TurnState",
        page_size: int,
        page_token: str,
    ) -> tuple[TurnRows, str]:
        ids = sorted(self.turns, reverse=True)
        start = int(page_token) if page_token.isdecimal() else 0
        rows = [await self.get(ctx, i) for i in ids[start : start + page_size]]
        return rows, str(start + page_size) if start + page_size < len(ids) else ""

    async def events(
        self, ctx: ExecutionContext, turn_id: str, after: int, limit: int
    ) -> tuple[Envelopes, bool]:
        await self.get(ctx, turn_id)
        rest = [e for e in self.turns[turn_id] if e.sequence > after]
        return rest[:limit], len(rest) > limit

    async def watch(
        self, ctx: ExecutionContext, turn_id: str, after: int, *, at_owner: bool = False
    ) -> AsyncIterator[Updates]:
        del at_owner
        await self.get(ctx, turn_id)
        self.watches.append(after)
        sent = 0
        while after < 3:
            async with self.changed:
                while len(self.turns[turn_id]) <= after:
                    await self.changed.wait()
            events = self.turns[turn_id][after : after + self.batch]
            after += len(events)
            yield [turn_pb2.TurnUpdate(event=event, epoch=1) for event in events]
            sent += 1
            if sent == self.cut_after and self.cuts:
                raise self.cuts.pop(0)

    async def wait(self, ctx: ExecutionContext, turn_id: str, timeout_s: float) -> turn_pb2.Turn:
        await self.get(ctx, turn_id)
        self.waited.set()
        try:
            async with asyncio.timeout(timeout_s), self.changed:
                await self.changed.wait_for(lambda: len(self.turns[turn_id]) == 3)
        except TimeoutError:
            pass
        return await self.get(ctx, turn_id)

    async def explain(self, ctx: ExecutionContext, turn_id: str) -> turn_service_pb2.ExplainTurnResponse:
        return turn_service_pb2.ExplainTurnResponse(state=(await self.get(ctx, turn_id)).state)


class ToyDeadLetters:
    """One dead letter."""

    def __init__(self) -> None:
        self.held = {
            "evt_1": admin_service_pb2.DeadLetter(dead_letter_id="evt_1", group="g", original=b"\x00\xff")
        }

    async def list(
        self, ctx: ExecutionContext, group: str, page_size: int, page_token: str
    ) -> tuple[list[admin_service_pb2.DeadLetter], str]:
        return [*self.held.values()], ""

    async def get(self, ctx: ExecutionContext, dead_letter_id: str) -> admin_service_pb2.DeadLetter:
        if dead_letter_id not in self.held:
            raise DeadLetterNotFound
        return self.held[dead_letter_id]

    async def replay(
        self, ctx: ExecutionContext, dead_letter_id: str, key: str, digest: bytes, rpc: str
    ) -> None:
        await self.drop(ctx, dead_letter_id, key, digest, rpc)

    async def drop(
        self, ctx: ExecutionContext, dead_letter_id: str, key: str, digest: bytes, rpc: str
    ) -> None:
        await self.get(ctx, dead_letter_id)
        del self.held[dead_letter_id]


class ToyConfig:
    """One setting."""

    def show(self) -> admin_service_pb2.GetConfigResponse:
        values = [admin_service_pb2.ConfigValue(name="log_level", value_json='"info"', source="default")]
        return admin_service_pb2.GetConfigResponse(values=values)

    async def reload(self) -> admin_service_pb2.ReloadConfigResponse:
        return admin_service_pb2.ReloadConfigResponse()
