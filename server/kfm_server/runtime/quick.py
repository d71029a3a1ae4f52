"""Quick PURE steps run before their dispatch is durable, so that their results need no commit of their own."""

import asyncio

from kfm.type.v1 import type_pb2 as types

from kfm_server.ports.steps import StepRunner
from kfm_server.runtime.attempts import attempt_of, no_progress, result_event
from kfm_server.turns.decide.draft import Adopt, Draft, Start
from kfm_server.turns.decide.step import attempt_ended, awaited
from kfm_server.turns.state import Session

INLINE_SECONDS = 0.005
"""How long quick steps may hold back an append."""
INLINE_EVENTS = 64
"""How many events may be in it before no further one runs."""


async def run_quick(draft: Draft, runner: StepRunner, epoch: int) -> None:
    """Run quick PURE steps that are ready at once: their results join this append (commit when you must).

    One that is slow after all is given up here, and runs again from its durable dispatch; being PURE, it may.
    Not for what a takeover finds, its inbox included: a step that kills the process has to be counted.
    """
    if not draft.starts:
        return
    loop = asyncio.get_running_loop()
    until = loop.time() + INLINE_SECONDS
    try:
        async with asyncio.timeout_at(until):
            while len(draft.events) < INLINE_EVENTS and loop.time() < until:
                # What follows from a fact may end what another one of the same draft dispatched.
                draft.starts[:] = [s for s in draft.starts if stands(draft.session, s)]
                start = next((s for s in draft.starts if _is_quick(draft, s)), None)
                if start is None:
                    return
                attempt = attempt_of(draft.turn(start.turn_id), start, epoch)
                result = await runner.run(attempt, no_progress)
                draft.starts.remove(start)
                attempt_ended(draft, start.turn_id, start.attempt, result_event(start.step_key, result))
    except TimeoutError:
        pass


def _is_quick(draft: Draft, start: Start) -> bool:
    sent = draft.turn(start.turn_id).steps[start.step_key].dispatch
    if sent is None or sent.contract != types.EFFECT_CONTRACT_PURE:
        return False
    tool = draft.world.tools.get(sent.tool)
    return tool is not None and tool.quick


def stands(session: Session, start: Start | Adopt) -> bool:
    """The attempt is still awaited: nothing has ended or superseded it."""
    return awaited(session, start.turn_id, start.step_key, start.attempt) is not None
