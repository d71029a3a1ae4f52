"""A model's reply decides what follows: calls to make, a plan to run, an answer, or another try."""

from collections.abc import Container, Sequence

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.turn.v1 import turn_pb2 as api
from kfm.type.v1 import type_pb2 as types

from kfm_server.canonical import clean_text, parse_json
from kfm_server.models import Personality
from kfm_server.tool_catalogue import ToolCatalogue
from kfm_server.turns.answer import misfit
from kfm_server.turns.decide.draft import Draft, error
from kfm_server.turns.decide.plan import next_plan_id
from kfm_server.turns.plan_validation import KEY, MAX_ARGUMENTS_BYTES, validate_plan
from kfm_server.turns.planners import rules
from kfm_server.turns.planners.agent import (
    ANSWER_KEY,
    ASK_PERSON,
    RESERVED,
    following,
    model_step,
    tools_of,
)
from kfm_server.turns.planners.given import read_steps
from kfm_server.turns.planners.types import PLAN_INVALID, STEP_LIMIT_EXCEEDED, Refused
from kfm_server.turns.references import find_references
from kfm_server.turns.replies import AskedCall, Reply, json_in, read_reply
from kfm_server.turns.state import MODEL_KINDS, Step, Turn

MAX_FEEDBACK = 2000
"""Longest account of what was wrong that a model is given, in characters."""
Skipped = dict[str, str]
"""Steps that cannot be run, by key, and why."""


def grow(draft: Draft, turn_id: str) -> bool:
    """Record what the last step asks for, if it is a model's and has ended; False if nothing follows from it."""
    turn = draft.turn(turn_id)
    last = turn.last_step
    if last is None or last.definition.kind not in MODEL_KINDS:
        return False
    if last.phase == api.STEP_STATE_FAILED:
        return _fall_back(draft, turn, last.error)
    if last.phase != api.STEP_STATE_SUCCEEDED:
        return False
    reply = read_reply(last.output_json)
    if last.definition.kind == types.STEP_KIND_PLAN:
        _run_plan(draft, turn, last, reply)
        return True
    if reply.calls:
        _make_calls(draft, turn, last, reply.calls)
        return True
    problem = misfit(turn, reply)
    if problem:
        _try_again(draft, turn, last, Refused("REASON_OUTPUT_INVALID", problem))
    return bool(problem)


def _personality(turn: Turn) -> Personality:
    return Personality.decode(turn.personality_json or "{}")


def _make_calls(draft: Draft, turn: Turn, asking: Step, calls: Sequence[AskedCall]) -> None:
    """The calls of a reply as steps that run side by side, and the model's next turn after them."""
    personality, key = _personality(turn), asking.definition.key
    tools = tools_of(personality, draft.world.tools)
    others = (ASK_PERSON,) if ASK_PERSON in (personality.tools or ()) else ()
    steps: list[types.PlanStep] = []
    skipped: Skipped = {}
    for index, call in enumerate(calls, 1):
        step = _call(f"{key}.c{index}", call, personality)
        checked = _alone(step, tools, turn.steps, others)
        if isinstance(checked, Refused):
            skipped[step.key] = checked.message
            steps.append(
                types.PlanStep(
                    key=step.key, kind=step.kind, tool=clean_text(call.name)[:64], arguments_json="{}"
                )
            )
        else:
            steps += checked
        if key not in steps[-1].depends_on:
            steps[-1].depends_on.append(key)
    steps.append(
        model_step(following(key), types.STEP_KIND_MODEL, asking.definition, [step.key for step in steps])
    )
    if len(skipped) == len(calls) and turn.repairs >= personality.max_repairs:
        _give_up(draft, turn, Refused(PLAN_INVALID, next(iter(skipped.values()))))
    else:
        _extend(draft, turn, steps, skipped, repaired=len(skipped) == len(calls))


def _call(key: str, call: AskedCall, personality: Personality) -> types.PlanStep:
    if call.name == ASK_PERSON and ASK_PERSON in (personality.tools or ()):
        return types.PlanStep(
            key=key, kind=types.STEP_KIND_HUMAN, instructions=_question(call.arguments_json)
        )
    return types.PlanStep(
        key=key, kind=types.STEP_KIND_TOOL, tool=call.name, arguments_json=call.arguments_json or "{}"
    )


def _question(arguments_json: str) -> str:
    try:
        value = parse_json(arguments_json)
    except ValueError:
        return ""
    question = value.get("question") if isinstance(value, dict) else None
    return clean_text(question) if isinstance(question, str) else ""


def _run_plan(draft: Draft, turn: Turn, asking: Step, reply: Reply) -> None:
    """The plan that a model wrote, checked; it is told what is wrong with it, and at last that part is left out."""
    personality = _personality(turn)
    tools = tools_of(personality, draft.world.tools)
    room = turn.request.limits.max_steps - len(turn.steps) - 1
    written = _written(reply, personality)
    checked = written if isinstance(written, Refused) or not written else validate_plan(written, tools, room)
    skipped: Skipped = {}
    if isinstance(checked, Refused):
        if turn.repairs < personality.max_repairs and checked.reason != STEP_LIMIT_EXCEEDED:
            _try_again(draft, turn, asking, checked)
            return
        kept = Refused(checked.reason, checked.message)
        if not isinstance(written, Refused) and checked.reason != STEP_LIMIT_EXCEEDED:
            skipped = _faulty(written, tools)
            good = [step for step in written if step.key not in skipped]
            checked = validate_plan(good, tools, room) if good else kept
        if isinstance(checked, Refused):
            _give_up(draft, turn, kept)
            return
    steps = list(checked)
    steps += [
        _as_skipped(step) for step in (() if isinstance(written, Refused) else written) if step.key in skipped
    ]
    before = [step.key for step in steps] or [asking.definition.key]
    steps.append(model_step(ANSWER_KEY, types.STEP_KIND_MODEL, asking.definition, before))
    _extend(draft, turn, steps, skipped)


def _written(reply: Reply, personality: Personality) -> tuple[types.PlanStep, ...] | Refused:
    try:
        value = json_in(reply.text)
    except ValueError as wrong:
        cut = "; it was cut off at the limit on output tokens and has to be shorter" if reply.cut else ""
        return Refused(PLAN_INVALID, f"the plan is {wrong}{cut}")
    steps = read_steps(value)
    if isinstance(steps, Refused):
        return steps
    for step in steps:  # what stands here cannot be left out: it has to be mended, or the plan is none
        if not KEY.fullmatch(step.key):
            return Refused(
                PLAN_INVALID, f"the key {step.key[:80]!r} is not 1 to 64 characters of a-z 0-9 _ . -"
            )
        if step.key.partition(".")[0] in RESERVED:
            return Refused(
                PLAN_INVALID, f"the key {step.key!r} is the engine's own; give the step another one"
            )
        if step.kind == types.STEP_KIND_HUMAN and ASK_PERSON not in (personality.tools or ()):
            return Refused(PLAN_INVALID, f"step {step.key!r}: no person may be asked; use the tools")
    return steps


def _alone(
    step: types.PlanStep, tools: ToolCatalogue, steps: Container[str], others: Sequence[str] = ()
) -> tuple[types.PlanStep, ...] | Refused:
    """The step checked by itself; it may use what the other steps come to. `others`: see validate_plan."""
    used = {name: types.PlanStep(key=name) for name in _used(step) if name in steps and name != step.key}
    return validate_plan([step], tools, len(used) + 1, used, others)


def _used(step: types.PlanStep) -> set[str]:
    """The steps that it names: in so many words, or by references."""
    try:
        references = {r.step for r in find_references(parse_json(step.arguments_json or "{}"))}
    except ValueError:
        references = set[str]()
    return references.union(step.depends_on)


def _faulty(steps: Sequence[types.PlanStep], tools: ToolCatalogue) -> Skipped:
    """Steps that cannot be run whatever comes before them, and all that follow from those."""
    uses = {step.key: _used(step) for step in steps}
    bad: Skipped = {}
    for step in steps:
        alone = _alone(step, tools, uses)
        if isinstance(alone, Refused):
            bad[step.key] = alone.message
    causes = list(bad)
    while causes:
        cause = causes.pop()
        for key, names in uses.items():
            if cause in names and key not in bad:
                bad[key] = f"it follows {cause}, which cannot be run"
                causes.append(key)
    return bad


def _as_skipped(step: types.PlanStep) -> types.PlanStep:
    arguments = step.arguments_json
    if len(arguments.encode()) > MAX_ARGUMENTS_BYTES:
        arguments = "{}"
    return types.PlanStep(
        key=step.key, kind=step.kind, tool=clean_text(step.tool)[:64], arguments_json=arguments
    )


def _extend(
    draft: Draft, turn: Turn, steps: Sequence[types.PlanStep], skipped: Skipped, *, repaired: bool = False
) -> None:
    """Record the steps, and those of them that are left out."""
    most = turn.request.limits.max_steps
    if len(turn.steps) + len(steps) > most:
        so_far = len(turn.steps) + len(steps)
        _refuse(
            draft,
            turn,
            Refused(STEP_LIMIT_EXCEEDED, f"the plan would have {so_far} steps; at most {most} are allowed"),
        )
        return
    why = next(iter(skipped.values()), "")
    draft.record(
        turn.turn_id,
        ev.PlanEvent(
            plan_id=next_plan_id(turn),
            change=ev.PLAN_CHANGE_REPAIRED if repaired else ev.PLAN_CHANGE_EXTENDED,
            planner=turn.planner,
            model=steps[-1].model,
            steps=steps,
            error=error(PLAN_INVALID, why[:MAX_FEEDBACK]) if why else None,
        ),
    )
    for key, message in skipped.items():
        draft.record(
            turn.turn_id,
            ev.StepResultEvent(
                step_key=key,
                status=ev.STEP_STATUS_SKIPPED,
                error=error(PLAN_INVALID, message[:MAX_FEEDBACK]),
                synthesised=True,
            ),
        )


def _try_again(draft: Draft, turn: Turn, asking: Step, wrong: Refused) -> None:
    """The same model once more, told what was wrong with its reply; so often as the personality allows."""
    if turn.repairs >= _personality(turn).max_repairs:
        _give_up(draft, turn, wrong)
        return
    if len(turn.steps) >= turn.request.limits.max_steps:
        most = turn.request.limits.max_steps
        _refuse(
            draft,
            turn,
            Refused(
                STEP_LIMIT_EXCEEDED, f"there is no room for another try; at most {most} steps are allowed"
            ),
        )
        return
    before = asking.definition
    draft.record(
        turn.turn_id,
        ev.PlanEvent(
            plan_id=next_plan_id(turn),
            change=ev.PLAN_CHANGE_REPAIRED,
            planner=turn.planner,
            model=before.model,
            steps=[model_step(following(before.key), before.kind, before, [before.key])],
            error=error(wrong.reason, wrong.message[:MAX_FEEDBACK]),
        ),
    )


def _give_up(draft: Draft, turn: Turn, why: Refused) -> None:
    if not _fall_back(draft, turn, error(why.reason, why.message)):
        _refuse(draft, turn, why)


def _fall_back(draft: Draft, turn: Turn, why: types.Error | None) -> bool:
    """The plan by rules in place of a model's, where the personality allows that and nothing was done yet."""
    # A fork's steps may have been done by its parent: only what was left out surely was not.
    done = any(
        s.definition.kind not in MODEL_KINDS and s.phase != api.STEP_STATE_SKIPPED
        for s in turn.steps.values()
    )
    message = tuple(turn.request.input)
    only_text = all(part.WhichOneof("content") == "text" for part in message)
    typed = turn.request.output_schema_json  # what rules answer fits no schema of the caller's
    if turn.planner != "hybrid" or done or not only_text or typed:
        return False
    planned = rules.plan(message, tools_of(_personality(turn), draft.world.tools))
    if isinstance(planned, Refused):
        return False
    limits = turn.request.limits
    steps = validate_plan(planned.steps, draft.world.tools, limits.max_steps - len(turn.steps))
    if isinstance(steps, Refused):
        return False
    draft.record(
        turn.turn_id,
        ev.PlanEvent(
            plan_id=next_plan_id(turn),
            change=ev.PLAN_CHANGE_REPAIRED,
            planner=planned.planner,
            complexity=planned.complexity,
            steps=steps,
            error=why,
        ),
    )
    return True


def _refuse(draft: Draft, turn: Turn, why: Refused) -> None:
    draft.record(
        turn.turn_id,
        ev.PlanEvent(
            plan_id=next_plan_id(turn),
            change=ev.PLAN_CHANGE_REFUSED,
            planner=turn.planner,
            error=error(why.reason, why.message[:MAX_FEEDBACK]),
        ),
    )
