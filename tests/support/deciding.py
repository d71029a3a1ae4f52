"""A session in a test's hands: facts in, recorded events and starts out, no clock and no loop."""

import json
from typing import Any

from google.protobuf.message import Message
from kfm.catalogue.events import unpack
from kfm.event.v1 import envelope_pb2
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm_server.canonical import canonical_json
from kfm_server.context import ExecutionContext
from kfm_server.tools.registry import ToolRegistry
from kfm_server.turns.decide.advance import advance
from kfm_server.turns.decide.control import control
from kfm_server.turns.decide.draft import Draft, Start, Stop, World, error
from kfm_server.turns.decide.plan import retry_from
from kfm_server.turns.decide.recover import recover
from kfm_server.turns.decide.step import attempt_ended
from kfm_server.turns.decide.submit import submit
from kfm_server.turns.fold import begin, fold_turn
from kfm_server.turns.replies import AskedCall, Reply
from kfm_server.turns.state import Session, Step, Turn
from kfm_server.turns.times import US, duration

from tests.support.ledger import TOOLS

REGISTRY = ToolRegistry(TOOLS)
BEGIN = 1_000 * US


class Desk:
    """Each method is one iteration of a session's loop whose append succeeded."""

    def __init__(self, registry: ToolRegistry = REGISTRY, **world: Any) -> None:
        self.world = World(
            tools=registry.catalogue, tools_digest=registry.digest, schema_release="1.2.0", **world
        )
        self.session = Session("ses_1")
        self.now_us = BEGIN
        self.log: list[envelope_pb2.Envelope] = []
        self.starts: list[Start] = []
        self.stops: list[Stop] = []
        self.hold = False

    def submit(
        self,
        turn_id: str,
        *steps: dict[str, Any],
        on_busy: ev.BusyMode = ev.BUSY_MODE_ENQUEUE,
        timeout_us: int = 3600 * US,
        max_attempts: int = 3,
        tenant_id: str = "default",
    ) -> None:
        """Hand in a message that brings its plan. Step timeouts are 30 s."""
        request = ev.TurnEvent(
            input=[types.Part(data_json=json.dumps({"plan": {"steps": list(steps)}}))],
            on_busy=on_busy,
            timeout=duration(timeout_us),
            limits=types.Limits(
                max_steps=10, max_attempts=max_attempts, max_in_flight=16, step_timeout=duration(30 * US)
            ),
        )
        draft = self._draft()
        submit(draft, ExecutionContext(tenant_id=tenant_id, session_id="ses_1"), turn_id, request)
        self._commit(draft)

    def say(self, turn_id: str, text: str, schema: str = "", **limits: int) -> None:
        """Hand in a message in words."""
        bounds = {"max_steps": 20, "max_attempts": 3, "max_in_flight": 16} | limits
        request = ev.TurnEvent(
            input=[types.Part(text=text)],
            on_busy=ev.BUSY_MODE_ENQUEUE,
            timeout=duration(3600 * US),
            limits=types.Limits(step_timeout=duration(30 * US), **bounds),
            output_schema_json=schema,
        )
        draft = self._draft()
        submit(draft, ExecutionContext(session_id="ses_1"), turn_id, request)
        self._commit(draft)

    def fork(self, turn_id: str, first: str = "") -> None:
        """Run turn_1, which has ended, again from a step as a new turn; without one, as a retry."""
        parent = self.ended_turn()
        request = ev.TurnEvent()
        request.CopyFrom(parent.request)
        request.parent_turn_id = parent.turn_id
        request.fork_step_key = first or retry_from(parent)
        request.root_turn_id = "" if first else parent.root_turn_id
        draft = self._draft()
        submit(draft, ExecutionContext(session_id="ses_1"), turn_id, request, parent)
        self._commit(draft)

    def ended_turn(self) -> Turn:
        """turn_1, folded from what was recorded of it."""
        turn: Turn | None = None
        for envelope in (e for e in self.log if e.turn_id == "turn_1"):
            payload = unpack(envelope)
            if isinstance(payload, ev.TurnEvent):
                turn = begin(envelope, payload)
            else:
                assert turn is not None
                turn = fold_turn(turn, envelope, payload)
        assert turn is not None
        return turn

    def reply(
        self,
        key: str,
        text: str = "",
        *calls: tuple[str, str],
        attempt: int = 1,
        tokens: int = 10,
        cut: bool = False,
        cached: bool = False,
    ) -> None:
        """The model of a step of turn_1 answered, with these calls (tool, arguments); `cached`: it was not asked."""
        self.reply_of("turn_1", key, text, *calls, attempt=attempt, tokens=tokens, cut=cut, cached=cached)

    def reply_of(
        self,
        turn_id: str,
        key: str,
        text: str,
        *calls: tuple[str, str],
        attempt: int = 1,
        tokens: int = 10,
        cut: bool = False,
        cached: bool = False,
    ) -> None:
        """The same of another turn."""
        asked = tuple(AskedCall(name, arguments) for name, arguments in calls)
        result = ev.StepResultEvent(
            step_key=key,
            status=ev.STEP_STATUS_SUCCEEDED,
            output_json=canonical_json(Reply(text, asked, cut).value()),
            metrics=ev.StepMetrics(
                usage=types.Usage()
                if cached
                else types.Usage(input_tokens=tokens, output_tokens=tokens, cost_nanos=tokens, model_calls=1),
                provider_request_id=f"req-{key}-{attempt}",
            ),
        )
        self.result(key, attempt, result, turn_id)

    def result(self, key: str, attempt: int, result: ev.StepResultEvent, turn_id: str = "turn_1") -> None:
        """An attempt of a step ended so."""
        draft = self._draft()
        assert attempt_ended(draft, turn_id, attempt, result)
        self._commit(draft)

    def ended(
        self,
        turn_id: str,
        key: str,
        attempt: int,
        status: ev.StepStatus = ev.STEP_STATUS_SUCCEEDED,
        *,
        reason: str = "REASON_TOOL_UNAVAILABLE",
        retryable: bool = True,
        compensation: bool = False,
    ) -> bool:
        """An attempt ended; answers whether its result counted."""
        failed = status != ev.STEP_STATUS_SUCCEEDED
        result = ev.StepResultEvent(
            step_key=key,
            status=status,
            output_json="" if failed else '{"v":1}',
            error=error(reason, "it failed", retryable=retryable) if failed else None,
            compensation=compensation,
        )
        draft = self._draft()
        counted = attempt_ended(draft, turn_id, attempt, result)
        self._commit(draft)
        return counted

    def ask(self, turn_id: str, verb: ev.TurnVerb, **fields: Any) -> None:
        """Somebody asks something of a turn. Raises as `control`."""
        draft = self._draft()
        control(draft, turn_id, ev.TurnControlEvent(verb=verb, **fields))
        self._commit(draft)

    def wait(self, us: int) -> None:
        """Time passes and a timer goes off."""
        self.now_us += us
        draft = self._draft()
        advance(draft)
        self._commit(draft)

    def taken_over(self, *, clean: bool) -> None:
        """Another process takes the session up."""
        draft = self._draft()
        recover(draft, clean=clean)
        self._commit(draft)

    def turn(self, turn_id: str) -> Turn:
        """A turn that has not ended."""
        turn = self.session.turn(turn_id)
        assert turn is not None
        return turn

    def step(self, turn_id: str, key: str) -> Step:
        """A step of it."""
        return self.turn(turn_id).steps[key]

    def of(self, kind: type[Message], turn_id: str = "turn_1") -> list[Any]:
        """Payloads of a type that were recorded for a turn."""
        found = [unpack(e) for e in self.log if e.turn_id == turn_id]
        return [p for p in found if isinstance(p, kind)]

    def finish(self, turn_id: str = "turn_1") -> ev.TurnStateEvent:
        """The event that ended a turn."""
        return next(c for c in self.of(ev.TurnStateEvent, turn_id) if c.change == ev.TURN_CHANGE_FINISHED)

    def _draft(self) -> Draft:
        return Draft(self.session, self.now_us, self.world, hold=self.hold)

    def _commit(self, draft: Draft) -> None:
        self.session = draft.session
        self.log += draft.events
        self.starts, self.stops = draft.starts, draft.stops
