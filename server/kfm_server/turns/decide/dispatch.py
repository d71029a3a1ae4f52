"""Starting a step: which may start now, and the dispatch that says so."""

from dataclasses import dataclass

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.turns.bodies import arguments_to_record, undo_arguments
from kfm_server.turns.decide.draft import Draft, Start, error
from kfm_server.turns.references import UnresolvedReference
from kfm_server.turns.state import MODEL_KINDS, Step, Turn, is_over
from kfm_server.turns.times import micros, timestamp
from kfm_server.turns.usage import exceeded, usage_of

_RERUN = frozenset(
    {types.EFFECT_CONTRACT_PURE, types.EFFECT_CONTRACT_IDEMPOTENT, types.EFFECT_CONTRACT_TRANSACTIONAL}
)


@dataclass(frozen=True, slots=True)
class _Call:
    tool: str
    arguments_json: str


def room(turn: Turn) -> int:
    """How many more steps may be in flight."""
    running = sum(s.phase == api.STEP_STATE_RUNNING for s in turn.steps.values())
    return turn.request.limits.max_in_flight - running


def ready(turn: Turn, now_us: int) -> list[Step]:
    """Steps that may be dispatched now, in plan order, within the bound on steps in flight."""
    most = room(turn)
    found: list[Step] = []
    for step in turn.steps.values():
        if len(found) >= most:
            break
        backing_off = step.phase == api.STEP_STATE_BACKING_OFF and not step.compensate
        again = backing_off and (step.wake_us or 0) <= now_us
        fresh = step.phase == api.STEP_STATE_PENDING and _is_due(turn, step)
        if again or fresh:
            found.append(step)
    return found


def _is_due(turn: Turn, step: Step) -> bool:
    """What it depends on is there: for a model, which is told of failures too, that all of it is over."""
    before = (turn.steps[key] for key in step.definition.depends_on)
    if step.definition.kind in MODEL_KINDS:
        return all(is_over(s) for s in before)
    return all(s.phase == api.STEP_STATE_SUCCEEDED for s in before)


def may_rerun(step: Step) -> bool:
    """The running attempt may be started again without asking anyone."""
    return step.dispatch is not None and step.dispatch.contract in _RERUN


def on_a_pool(step: Step) -> bool:
    """The running attempt was handed to a worker pool."""
    return step.dispatch is not None and step.dispatch.pool not in ("", "local")


def dispatch(
    draft: Draft, turn_id: str, step: Step, *, rerun: bool = False, compensation: bool = False
) -> None:
    """Record a dispatch of the step; it starts after the append.

    Or its failure: of one whose references name nothing, or a model call that a limit of the turn forbids.
    """
    turn = draft.turn(turn_id)
    definition = step.definition
    limits = turn.request.limits
    model = definition.kind in MODEL_KINDS
    used = usage_of(turn) if model else types.Usage()
    if model:
        problem = exceeded(limits, used)
        if problem:
            _not_started(draft, turn_id, step, error("REASON_BUDGET_EXCEEDED", problem))
            return
    if rerun:
        assert step.dispatch is not None
        call = _Call(step.dispatch.tool, step.dispatch.parameters_json)
    elif compensation:
        assert step.dispatch is not None
        before = step.dispatch
        if before.compensation:
            call = _Call(before.tool, before.parameters_json)
        else:
            undo = undo_arguments(before.parameters_json, before.key)
            call = _Call(definition.compensation_tool, undo)
    else:
        try:
            call = _Call(definition.tool, arguments_to_record(turn, definition))
        except UnresolvedReference as bad:
            _not_started(draft, turn_id, step, error("REASON_PLAN_INVALID", f"step {definition.key}: {bad}"))
            return
    timeout_us = micros(definition.timeout) or micros(turn.request.limits.step_timeout)
    human = definition.kind == types.STEP_KIND_HUMAN
    pool = definition.pool
    if compensation and call.tool != definition.tool:
        undoes = draft.world.tools.get(call.tool)
        pool = undoes.pool if undoes is not None else ""
    window = draft.world.pool_window_us if pool else draft.world.start_window_us
    # The engine starts a PURE step when it likes; for others the window bounds when a frozen process may wake.
    deadline = draft.now_us + timeout_us + (0 if human else window)
    attempt = step.attempt + 1
    # A retry does not call a model under the key of its root: its prompt is another one.
    key = f"{turn.turn_id if model else turn.root_turn_id}:{definition.key}"
    # A rerun, and another try to undo the same attempt, go out under the key of the one before.
    again = (
        step.dispatch if rerun or (compensation and step.dispatch and step.dispatch.compensation) else None
    )
    draft.record(
        turn_id,
        ev.StepEvent(
            plan_id=turn.plan_id,
            step_id=f"{turn_id}:{definition.key}",
            step_key=definition.key,
            step_index=step.index,
            step_type=definition.kind,
            tool=call.tool,
            instructions=definition.instructions,
            parameters_json=call.arguments_json,
            contract=types.EFFECT_CONTRACT_IDEMPOTENT if compensation else definition.effect,
            key=again.key if again is not None else f"{key}:undo{step.attempt}" if compensation else key,
            start_by=None if human else timestamp(draft.now_us + window),
            deadline=timestamp(deadline) if not human or micros(definition.timeout) else None,
            pool=pool or "local",
            principal=turn.request.principal if pool else "",
            rerun=rerun,
            compensation=compensation,
            model=definition.model,
            max_tokens=_left(limits.max_tokens, used.input_tokens + used.output_tokens) if model else 0,
            max_cost_nanos=_left(limits.max_cost_nanos, used.cost_nanos) if model else 0,
        ),
        attempt,
    )
    if not human:
        draft.starts.append(Start(turn_id, definition.key, attempt))


def _not_started(draft: Draft, turn_id: str, step: Step, why: types.Error) -> None:
    """The failure of a step in place of its dispatch. One whose process died has an attempt that this ends."""
    draft.record(
        turn_id,
        ev.StepResultEvent(
            step_key=step.definition.key, status=ev.STEP_STATUS_FAILED, error=why, synthesised=True
        ),
        step.attempt if step.phase == api.STEP_STATE_RUNNING else 0,
    )


def _left(most: int, used: int) -> int:
    """What is left of a limit; 0 is none."""
    return most - used if most else 0
