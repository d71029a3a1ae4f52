"""Clients and an operator: what people do to a server that keeps falling over."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from kfm.catalogue.errors import (
    Draining,
    IdempotencyConflict,
    Internal,
    KfmError,
    NotOwner,
    Unavailable,
)
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types
from kfm_server.context import ExecutionContext
from kfm_server.runtime.facts import Accepted
from kfm_server.runtime.following import is_end

from tests.simulator.audit import Auditor
from tests.simulator.process import Process

TOOLS = ("pure", "pure", "idem", "once", "tx", "do")
_AGAIN = (Unavailable, NotOwner, Draining)
_RPC_SECONDS = 4.0


@dataclass
class Town:
    """What clients share: the servers, the sessions, the turns that they know of."""

    pick: Callable[[random.Random], Process | None]
    auditor: Auditor
    report: Callable[[str], None]
    sessions: list[str]
    turns: list[str] = field(default_factory=list[str])
    quiet: bool = False
    tools: tuple[str, ...] = TOOLS


class Client:
    """One client with dice of its own."""

    def __init__(self, name: str, seed: int, town: Town) -> None:
        self.name = name
        self.dice = random.Random(f"{seed}:{name}")
        self.town = town
        self._keys = 0
        self.watches: list[asyncio.Task[None]] = []
        self._ctx = ExecutionContext(principal=name if self.dice.random() < 0.5 else "shared")

    async def play(self, seconds: float) -> None:
        """Do things until the time is up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while loop.time() < until:
            await asyncio.sleep(self.dice.expovariate(0.9))
            draw = self.dice.random()
            if draw < 0.62 or not self.town.turns:
                await self.submit()
            elif draw < 0.94:
                await self.control()
            else:
                await self.fork()

    # -- requests

    async def call(self, work: Callable[[Process], Any], name: str) -> Any:
        """Call some server until one answers; a key makes that safe. Raises KfmError for what is final."""
        while True:
            process = self.town.pick(self.dice)
            if process is None:
                await asyncio.sleep(0.2)
                continue
            task = process.door(work(process), f"{self.name} {name}")
            process.calls[task] = name
            task.add_done_callback(lambda done, process=process: process.calls.pop(done, None))
            done, _ = await asyncio.wait((task,), timeout=_RPC_SECONDS)
            if not done:
                continue  # no answer: the same key again, perhaps elsewhere
            try:
                return task.result()
            except _AGAIN:
                await asyncio.sleep(0.1 + self.dice.random())
            except Internal as bad:
                self.town.report(f"{name}: {bad!r}")
                raise
            except KfmError:
                raise
            except Exception as bad:
                self.town.report(f"{name} raised {bad!r}")
                raise Internal from bad

    def key(self) -> str:
        """A fresh idempotency key."""
        self._keys += 1
        return f"{self.name}-{self._keys}"

    async def submit(self) -> None:
        """Hand a message in, perhaps twice at once, and watch what becomes of it."""
        spec, key = self.spec(), self.key()
        digest = spec.SerializeToString(deterministic=True)[:16]

        def ask(process: Process) -> Any:
            return process.manager.submit(self._ctx, spec, key, digest, "SubmitTurn")

        draw = self.dice.random()
        try:
            if draw < 0.15:
                other = asyncio.ensure_future(self.call(ask, f"submit {key} again"))
                found = [await self.call(ask, f"submit {key}")]
                found.append(await other)
            elif draw < 0.25:
                await self._run(spec, key, digest)
                found = [await self.call(ask, f"submit {key} after run")]
            else:
                found = [await self.call(ask, f"submit {key}")]
        except KfmError:
            return
        for accepted in found:
            self._accepted(key, accepted)
        if draw > 0.9:
            await self._conflict(spec, key)
        if self.dice.random() < 0.7:
            turn_id = found[0].turn_id
            self.watches.append(asyncio.ensure_future(self.watch(turn_id)))

    async def _conflict(self, spec: api.TurnSpec, key: str) -> None:
        def ask(process: Process) -> Any:
            return process.manager.submit(self._ctx, spec, key, b"another", "SubmitTurn")

        try:
            await self.call(ask, f"conflict {key}")
        except IdempotencyConflict:
            return
        except KfmError as other:
            self.town.report(f"key {key} with another body was answered {other!r}")
            return
        self.town.report(f"key {key} was accepted with another body")

    async def _run(self, spec: api.TurnSpec, key: str, digest: bytes) -> None:
        seen: list[int] = []

        async def follow(process: Process) -> None:
            last = 0
            async for updates in process.manager.run(self._ctx, spec, key, digest, "SubmitTurn"):
                for update in updates:
                    if update.HasField("event"):
                        self.town.auditor.told(self.name, update.event)
                        if update.event.sequence != last + 1:
                            self.town.report(f"I7 run {key}: {update.event.sequence} follows {last}")
                        last = update.event.sequence
                        seen.append(last)

        await self.call(follow, f"run {key}")

    def _accepted(self, key: str, accepted: Accepted) -> None:
        self.town.auditor.acknowledge(f"{self._ctx.principal}:{key}", accepted.turn_id)
        if accepted.turn_id not in self.town.turns:
            self.town.turns.append(accepted.turn_id)

    async def control(self) -> None:
        """Cancel, pause or resume some turn."""
        turn_id = self.dice.choice(self.town.turns[-6:])
        verb = self.dice.choice((ev.TURN_VERB_CANCEL, ev.TURN_VERB_PAUSE, ev.TURN_VERB_RESUME))
        await self.ask(turn_id, ev.TurnControlEvent(verb=verb))

    async def ask(self, turn_id: str, asked: ev.TurnControlEvent) -> None:
        """Ask something of a turn; a refusal is an answer."""
        key = self.key()

        def send(process: Process) -> Any:
            again = ev.TurnControlEvent()
            again.CopyFrom(asked)
            return process.manager.control(self._ctx, turn_id, again, key, b"c", "ControlTurn")

        with contextlib.suppress(KfmError):
            await self.call(send, f"{ev.TurnVerb.Name(asked.verb)} {turn_id} {key}")

    async def fork(self) -> None:
        """Run a turn again."""
        turn_id, key = self.dice.choice(self.town.turns), self.key()
        retry = self.dice.random() < 0.7

        def send(process: Process) -> Any:
            return process.manager.fork(self._ctx, turn_id, "s0", retry, key, b"f", "ForkTurn")

        with contextlib.suppress(KfmError):
            self._accepted(key, await self.call(send, f"fork {turn_id} {key}"))

    # -- watching

    async def watch(self, turn_id: str) -> None:
        """See every event of a turn once and in order, whatever happens to the servers."""
        last, ended = 0, False
        while not ended:
            process = self.town.pick(self.dice)
            if process is None:
                await asyncio.sleep(0.2)
                continue
            box: asyncio.Queue[api.TurnUpdate | None] = asyncio.Queue()

            async def serve(process: Process = process, box: Any = box, last: int = last) -> None:
                try:
                    async for updates in process.manager.watch(self._ctx, turn_id, last):
                        for update in updates:
                            if update.HasField("event"):
                                self.town.auditor.told(self.name, update.event)
                            box.put_nowait(update)
                except _AGAIN:
                    pass
                box.put_nowait(None)

            task = process.door(serve(), f"{self.name} watch {turn_id}")
            process.calls[task] = f"watch {turn_id} after {last}"
            task.add_done_callback(lambda done, process=process: process.calls.pop(done, None))
            # Half of the readers leave soon and come back; the others hold on while the server seems to be there.
            patience = 0.3 + self.dice.random() * 3 if self.dice.random() < 0.5 else 1e9
            last, ended = await self._read(process, box, turn_id, last, patience)
            if not task.done() and patience < 1e9:
                task.cancel()
            if not ended:
                await asyncio.sleep(0.05)

    async def _read(
        self,
        process: Process,
        box: asyncio.Queue[api.TurnUpdate | None],
        turn_id: str,
        last: int,
        patience: float,
    ) -> tuple[int, bool]:
        loop = asyncio.get_running_loop()
        until = loop.time() + patience
        while loop.time() < until:
            try:
                async with asyncio.timeout(min(2.0, patience)):
                    update = await box.get()
            except TimeoutError:
                if process.host.dead:
                    return last, False
                continue
            if update is None or update.HasField("reconnect"):
                return last, False
            if not update.HasField("event"):
                continue
            if update.event.sequence != last + 1:
                self.town.report(f"I7 {turn_id}: watcher got {update.event.sequence} after {last}")
            last = update.event.sequence
            if is_end(update.event):
                return last, True
        return last, False

    # -- messages

    def spec(self) -> api.TurnSpec:
        """A message that brings its plan."""
        dice = self.dice
        draw = dice.random()
        if draw < 0.1:
            return self._stubborn()
        if draw < 0.15:
            return self._together()
        if draw < 0.3:
            return self._in_words()
        steps: list[dict[str, Any]] = []
        for n in range(dice.randint(1, 4)):
            before = [s["key"] for s in steps]
            step: dict[str, Any] = {"key": f"s{n}"}
            if dice.random() < 0.06:
                step |= {"kind": "human", "instructions": "Shall we?"}
                if dice.random() < 0.5:
                    step["timeout_ms"] = dice.randint(100, 3000)
            else:
                arguments: dict[str, Any] = {"fail": dice.choice((0.0, 0.0, 0.0, 0.5, 0.9))}
                arguments["slow"] = dice.choice((0.0, 0.0, 0.004, 0.05, 1.0, 4.0))
                if before and dice.random() < 0.4:
                    pointer = "/v" if dice.random() < 0.9 else "/nothing"
                    arguments["x"] = {"$ref": f"{dice.choice(before)}#{pointer}"}
                step |= {"tool": dice.choice(self.town.tools), "arguments": arguments}
            if before and dice.random() < 0.5:
                step["depends_on"] = [dice.choice(before)]
            steps.append(step)
        plan = json.dumps({"plan": {"steps": steps}})
        spec = api.TurnSpec(
            session_id=dice.choice(self.town.sessions) if dice.random() < 0.85 else "",
            input=[types.Part(data_json=plan)],
            on_busy=dice.choice((0, 1, 1, 2, 3, 4)),
            limits=types.Limits(max_attempts=dice.choice((0, 1, 2)), max_in_flight=dice.choice((0, 1, 2))),
        )
        spec.limits.step_timeout.CopyFrom(_ms(dice.choice((200, 1000, 3000))))
        if dice.random() < 0.12:
            spec.timeout.CopyFrom(_ms(dice.randint(50, 4000)))
        return spec

    def _stubborn(self) -> api.TurnSpec:
        """One step that fails nearly always and backs off for seconds, alone in its session: only a timer helps it."""
        return _spec(6, _call("s0", self.dice.choice(("idem", "tx", "do")), 1.8, 0.0))

    def _in_words(self) -> api.TurnSpec:
        """A message that a model has to plan."""
        return api.TurnSpec(
            session_id=self.dice.choice(self.town.sessions),
            personality=self.dice.choice(("", "reactor", "planner")),
            input=[types.Part(text="Think of something.")],
            limits=types.Limits(
                max_model_calls=self.dice.choice((0, 0, 3)),
                max_tokens=self.dice.choice((0, 0, 200)),
                max_attempts=self.dice.choice((0, 2)),
            ),
        )

    def _together(self) -> api.TurnSpec:
        """Steps that end at nearly one time, one of them badly, while another keeps the turn open."""
        return _spec(
            1, _call("s0", "once", 0.0, 4.0), *(_call(f"s{n}", "idem", 0.6, 0.01) for n in (1, 2, 3))
        )


class Operator(Client):
    """Answers, settles and resumes; once all is quiet, everything."""

    async def attend(self) -> None:
        """Look at the turns until cancelled."""
        while True:
            await asyncio.sleep(0.5 if self.town.quiet else 1 + self.dice.random())
            for turn_id, log in list(self.town.auditor.turns.items()):
                turn = log.folded
                if turn is None or turn.phase == api.TURN_STATE_FINISHED:
                    continue
                if not self.town.quiet and self.dice.random() < 0.6:
                    continue
                if turn.paused and (self.town.quiet or self.dice.random() < 0.5):
                    await self.ask(turn_id, ev.TurnControlEvent(verb=ev.TURN_VERB_RESUME))
                for key, step in turn.steps.items():
                    if step.phase == api.STEP_STATE_WAITING:
                        asked = ev.TurnControlEvent(
                            verb=ev.TURN_VERB_ANSWER, step_key=key, output_json='{"v":1}'
                        )
                        await self.ask(turn_id, asked)
                    elif step.phase == api.STEP_STATE_NEEDS_REVIEW:
                        await self.ask(turn_id, self._verdict(key))

    def _verdict(self, key: str) -> ev.TurnControlEvent:
        settle = self.dice.choice(
            (ev.SETTLE_AS_SUCCEEDED, ev.SETTLE_AS_FAILED, ev.SETTLE_AS_FAILED, ev.SETTLE_AS_RETRY)
        )
        return ev.TurnControlEvent(
            verb=ev.TURN_VERB_SETTLE, step_key=key, settle_as=settle, output_json='{"v":2}', reason="looked"
        )


def _call(key: str, tool: str, fail: float, slow: float) -> dict[str, Any]:
    return {"key": key, "tool": tool, "arguments": {"fail": fail, "slow": slow}}


def _spec(max_attempts: int, *steps: dict[str, Any]) -> api.TurnSpec:
    spec = api.TurnSpec(
        input=[types.Part(data_json=json.dumps({"plan": {"steps": steps}}))],
        limits=types.Limits(max_attempts=max_attempts),
    )
    spec.limits.step_timeout.CopyFrom(_ms(3000))
    return spec


def _ms(value: int) -> Duration:
    return Duration(seconds=value // 1000, nanos=value % 1000 * 1_000_000)
