"""Bugs, each a small change of the engine's source, for copies of the package only."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import kfm_server


@dataclass(frozen=True)
class Bug:
    """A bug: which texts of which files become what. Each text must be there exactly once."""

    name: str
    changes: tuple[tuple[str, str, str], ...]


_LANE = "runtime/session_lane.py"
_ADVANCE = "turns/decide/advance.py"
_DISPATCH = "turns/decide/dispatch.py"
_ENDING = "turns/decide/ending.py"
_HUB = "runtime/pools/connections.py"

BUGS = (
    Bug(
        "no_fence_check",
        (
            (
                "journal/memory.py",
                "if self.epochs.get(entry.partition) != entry.epoch:",
                "if entry.partition not in self.epochs:",
            ),
        ),
    ),
    Bug(
        "told_before_commit",
        (
            (
                _LANE,
                "            await (append or self._parts.journal.append)(",
                "            self._parts.broadcaster.publish(draft.events, self._owner.epoch)\n"
                "            await (append or self._parts.journal.append)(",
            ),
        ),
    ),
    Bug("lost_wake_up", ((_LANE, "            while self._mailbox:\n", "            if self._mailbox:\n"),)),
    Bug(
        "retry_timer_forgotten_at_takeover",
        (
            (
                _LANE,
                "        self._set_timer()\n",
                "        if draft.events:\n            self._set_timer()\n",
            ),
        ),
    ),
    Bug(
        "duplicate_dispatch",
        (
            (
                _DISPATCH,
                "fresh = step.phase == api.STEP_STATE_PENDING and",
                "fresh = (\n            step.phase == api.STEP_STATE_PENDING"
                " or (step.phase == api.STEP_STATE_RUNNING and step.attempt < 2)\n        ) and",
            ),
        ),
    ),
    Bug(
        "queue_lost_between_two_turns",
        (
            (
                _ADVANCE,
                "        if draft.session.active is not None:\n            return\n\n\ndef _start_next",
                "        return\n\n\ndef _start_next",
            ),
        ),
    ),
    Bug(
        "effect_run_twice",
        (
            (
                _DISPATCH,
                "    {types.EFFECT_CONTRACT_PURE, types.EFFECT_CONTRACT_IDEMPOTENT, types.EFFECT_CONTRACT_TRANSACTIONAL}\n",
                "    {\n        types.EFFECT_CONTRACT_PURE,\n        types.EFFECT_CONTRACT_IDEMPOTENT,\n"
                "        types.EFFECT_CONTRACT_TRANSACTIONAL,\n        types.EFFECT_CONTRACT_AT_MOST_ONCE,\n    }\n",
            ),
        ),
    ),
    Bug(
        "gap_in_a_sequence",
        (
            (
                _LANE,
                "            await (append or self._parts.journal.append)(",
                "            self.session = draft.session\n            await (append or self._parts.journal.append)(",
            ),
        ),
    ),
    Bug(
        "late_result_accepted",
        (
            (
                "turns/decide/step.py",
                "if step is None or step.phase != api.STEP_STATE_RUNNING or step.attempt != attempt:",
                "if step is None:",
            ),
        ),
    ),
    Bug(
        "cancel_leaves_an_unanswered_call",
        (
            (
                _ENDING,
                "            draft.stops.append(Stop(turn.turn_id, key, step.attempt))\n",
                "            draft.stops.append(Stop(turn.turn_id, key, step.attempt))\n            continue\n",
            ),
            (
                _ENDING,
                "    if any(s.phase == api.STEP_STATE_RUNNING or (",
                "    if any(\n        s.phase == api.STEP_STATE_RUNNING and s.dispatch"
                " and s.dispatch.contract not in _CANCELLABLE or (",
            ),
        ),
    ),
    Bug(
        "result_acknowledged_before_it_is_recorded",
        (
            (
                _HUB,
                "            job.end(told.result)\n",
                "            job.end(told.result)\n            self._acknowledgements.tell(worker, told.ref, True)\n",
            ),
        ),
    ),
    Bug(
        "takeover_does_not_wait_for_the_worker",
        (("turns/decide/recover.py", "if on_a_pool(step) and not (", "if False and not ("),),
    ),
)


def plant(bug: Bug, root: Path) -> Path:
    """A copy of the engine with the bug under `root`. Raises AssertionError when a text is not there exactly once."""
    copy = root / "kfm_server"
    # With what is compiled, which is good for a source of the same time and size; "*.pyc.*" is being written.
    shutil.copytree(Path(kfm_server.__path__[0]), copy, ignore=shutil.ignore_patterns("*.pyc.*"))
    for file, old, new in bug.changes:
        source = copy / file
        text = source.read_text()
        assert text.count(old) == 1, f"{bug.name}: {file} holds {text.count(old)} times: {old!r}"
        source.write_text(text.replace(old, new))
        for compiled in (source.parent / "__pycache__").glob(f"{source.stem}.*"):
            compiled.unlink()
    return copy
