"""What a model reads of a turn: little unless it asks for all, what is cut said in words, and the exact next call."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kfm_mcp.arguments import compact
from kfm_mcp.catalogue import Json
from kfm_mcp.sizes import CONCISE_TOKENS, FULL_TOKENS, cut, fit, tokens

_CONCISE_TURN = (
    "turn_id",
    "session_id",
    "state",
    "outcome",
    "wait_reason",
    "output",
    "error",
    "submitted_at",
    "finished_at",
    "effects_done",
)
_CONCISE_EVENT = ("type", "sequence", "timestamp", "payload")
_NEED_SOMEONE = {"STEP_STATE_WAITING": "kfm_step_answer", "STEP_STATE_NEEDS_REVIEW": "kfm_step_settle"}
_SHOWN_STEPS = (*_NEED_SOMEONE, "STEP_STATE_FAILED")
_PREVIEW = 120
_MOST_CALLS = 5


@dataclass(frozen=True, slots=True)
class View:
    """An answer: the structured content, and the same in words."""

    data: Json
    text: str


def started(turn_id: str, session_id: str, again: bool) -> View:
    """The answer to a start."""
    data: Json = {
        "turn_id": turn_id,
        "session_id": session_id,
        "next": next_call("kfm_turn_wait", turn_id=turn_id),
    }
    text = f"{'Repeat of an earlier identical start' if again else 'Started'}: {turn_id} in session {session_id}."
    if again:
        data["note"] = (
            "This is the turn of an earlier identical start: nobody had come back to it, so this call counts as a repeat. "
            "To start another turn, call again with a new idempotency_key."
        )
        text += f" {data['note']}"
    return View(data, f"{text}\n{_next_words([data['next']])}")


def turned_on(group: str) -> str:
    """How someone gets a group of tools that is off, at either transport."""
    return (
        f"start the bridge with --group {group} (for a server's /mcp, the server with KFM_MCP_GROUP={group})"
    )


def turn(
    raw: Json, *, full: bool = False, offset: int = 0, answerable: bool = False, waiting: bool = True
) -> View:
    """A turn. `offset` is where its output goes on; `answerable` says that the tools for steps are offered; with `waiting`
    the next call of a turn that runs is to wait for it.
    """
    turn_id: str = raw["turn_id"]
    shown: Json = dict(raw) if full else {name: raw[name] for name in _CONCISE_TURN if name in raw}
    steps: list[Json] = raw.get("steps", [])
    if not full:
        attention = [_concise_step(step) for step in steps if step.get("state") in _SHOWN_STEPS]
        if attention:
            shown["steps"] = attention
    shown["output"], answer, cut_at = _output(
        raw.get("output", []), offset, FULL_TOKENS if full else CONCISE_TOKENS
    )
    calls = _next_calls(raw, answerable) if waiting else []
    notes: list[str] = []
    if cut_at:
        calls.append(next_call("kfm_turn_get", turn_id=turn_id, detail="full", output_offset=cut_at[0]))
        calls[-1]["why"] = "the output goes on"
        notes.append(f"The output is truncated: characters {offset} to {cut_at[0]} of {cut_at[1]} are shown.")
    output = shown.pop("output")
    body, shortened = fit(shown, 4_000 if full else 2_000)
    if shortened:
        more = "kfm_turn_events has every step" if full else "ask kfm_turn_get with detail=full"
        notes.append(f"Long fields are truncated: {more}.")
    if output:
        body["output"] = output
    data: Json = {"turn": body, "next": calls}
    if notes:
        data["truncated"] = " ".join(notes)
    return View(data, "\n".join(filter(None, (_turn_words(raw, steps), answer, *notes, _next_words(calls)))))


def turns(raw: Json, *, full: bool = False) -> View:
    """A page of turns."""
    rows = raw.get("turns", [])
    body, shortened = fit({"turns": rows if full else [_row(one) for one in rows]}, 9_000)
    data: Json = {"turns": body.get("turns", [])}
    lines = [_line(one) for one in data["turns"]] or ["No turns."]
    if token := raw.get("next_page_token"):
        data["next_page_token"] = token
        data["next"] = next_call("kfm_turns_list", page_token=token)
        data["next"]["why"] = "older turns follow; keep the other arguments"
        lines.append(_next_words([data["next"]]))
    if shortened:
        data["truncated"] = (
            f"Truncated: {len(data['turns'])} of {len(rows)} turns are shown; ask with a smaller page_size."
        )
        lines.append(data["truncated"])
    return View(data, "\n".join(lines))


def events(raw: Json, turn_id: str, *, full: bool = False) -> View:
    """A page of events, as many as fit."""
    all_: list[Json] = raw.get("events", [])
    kept: list[Json] = []
    room = 9_000 if full else 5_000
    for event in all_:
        one = event if full else {name: event[name] for name in _CONCISE_EVENT if name in event}
        payload, _ = fit(event.get("payload", {}), 2_000 if full else 150)
        one = {**one, "payload": payload}
        room -= tokens(compact(one))
        if room < 0:
            break
        kept.append(one)
    more = len(kept) < len(all_) or bool(raw.get("more"))
    data: Json = {"events": kept, "more": more}
    lines = [f"{e.get('sequence', '')} {e.get('timestamp', '')} {e.get('type', '')}" for e in kept] or [
        "No events after that."
    ]
    if more and kept:
        data["next"] = next_call("kfm_turn_events", turn_id=turn_id, after_sequence=int(kept[-1]["sequence"]))
        data["next"]["why"] = "events follow"
        data["truncated"] = f"{len(kept)} events are shown; more follow."
        lines += [data["truncated"], _next_words([data["next"]])]
    return View(data, "\n".join(lines))


def plain(raw: Json) -> View:
    """Anything else: its fields as they are."""
    data, shortened = fit(raw, 9_000)
    if shortened:
        data["truncated"] = "Truncated to fit."
    return View(data, compact(data))


def next_call(tool: str, **arguments: Any) -> Json:
    """A call that the model can copy."""
    return {"tool": tool, "arguments": arguments}


def _next_calls(raw: Json, answerable: bool) -> list[Json]:
    turn_id, state = raw["turn_id"], raw.get("state")
    if state == "TURN_STATE_FINISHED":
        return []
    if raw.get("wait_reason") == "WAIT_REASON_PAUSED":
        return [{"why": f"someone paused it; a person types: kfm turn resume {turn_id}"}]
    people = [step for step in raw.get("steps", []) if step.get("state") in _NEED_SOMEONE]
    calls = [_for_person(turn_id, step, answerable) for step in people[:_MOST_CALLS]]
    return calls or [{**next_call("kfm_turn_wait", turn_id=turn_id), "why": "it goes on"}]


def _for_person(turn_id: str, step: Json, answerable: bool) -> Json:
    key = step["definition"]["key"]
    tool = _NEED_SOMEONE[step["state"]]
    question = _clip(step["definition"].get("instructions", ""), 200)
    if tool == "kfm_step_answer":
        call = next_call(tool, turn_id=turn_id, step_key=key, output_json='"the answer as JSON"')
        call["why"] = f"step {key} asks a person: {question}"
        typed = f"kfm turn answer {turn_id} {key} JSON"
    else:
        call = next_call(
            tool,
            turn_id=turn_id,
            step_key=key,
            settle_as="SETTLE_AS_SUCCEEDED|SETTLE_AS_FAILED|SETTLE_AS_RETRY",
        )
        call["why"] = f"whether step {key} took effect is not known; a person must look and say"
        typed = f"kfm turn settle {turn_id} {key} --as succeeded|failed|retry"
    if not answerable:
        call["why"] += (
            f". This tool is off here: a person types `{typed}`, or someone must {turned_on('steps')}"
        )
    return call


def _output(parts: list[Json], offset: int, most: int) -> tuple[list[Json], str, tuple[int, int] | None]:
    """The parts to show, their text, and where it was cut of how many characters, if it was."""
    whole = "\n".join(part.get("text") or part.get("data_json", "") for part in parts)
    rest = whole[offset:]
    text = cut(rest, most)
    if len(text) < len(rest):
        return [{"text": text}], text, (offset + len(text), len(whole))
    return (parts if not offset else [{"text": text}]), text, None


def _concise_step(step: Json) -> Json:
    definition = step.get("definition", {})
    last = (step.get("attempts") or [{}])[-1]
    kept = {"key": definition.get("key", ""), "state": step.get("state", "")}
    if question := definition.get("instructions"):
        kept["instructions"] = _clip(question, 500)
    if tool := definition.get("tool"):
        kept["tool"] = tool
    if error := last.get("error"):
        kept["error"] = error
    return kept


def _row(raw: Json) -> Json:
    kept = {name: raw[name] for name in _CONCISE_TURN if name in raw and name != "output"}
    asked = " ".join(p.get("text") or p.get("data_json", "") for p in raw.get("spec", {}).get("input", []))
    return {**kept, "spec": {"input": [{"text": _clip(asked, _PREVIEW)}]}}


def _turn_words(raw: Json, steps: list[Json]) -> str:
    words = [f"Turn {raw['turn_id']}: {_name(raw.get('outcome') or raw.get('state', ''))}."]
    if reason := raw.get("wait_reason"):
        words.append(f"It waits: {_name(reason)}.")
    if error := raw.get("error"):
        words.append(f"{_clip(error.get('message', ''), 1_000)} [{error.get('reason', '')}]")
    if done := raw.get("effects_done"):
        words.append(f"Effects that stand: {_clip(', '.join(done), 500)}.")
    if steps:
        ended = sum(step.get("state") in ("STEP_STATE_SUCCEEDED", "STEP_STATE_SKIPPED") for step in steps)
        words.append(f"{ended} of {len(steps)} steps done.")
    return " ".join(words)


def _line(raw: Json) -> str:
    asked = " ".join(p.get("text") or p.get("data_json", "") for p in raw.get("spec", {}).get("input", []))
    return f"{raw.get('turn_id')} {_name(raw.get('outcome') or raw.get('state', ''))} {raw.get('submitted_at', '')} {_clip(asked, _PREVIEW)}"


def _next_words(calls: Iterable[Json]) -> str:
    lines: list[str] = []
    for call in calls:
        what = f"{call['tool']} {compact(call['arguments'])}" if "tool" in call else ""
        why = call.get("why", "")
        lines.append(f"Next: {what} ({why})" if what and why else f"Next: {what or why}")
    return "\n".join(lines)


def _name(enum: str) -> str:
    for prefix in ("OUTCOME_", "TURN_STATE_", "WAIT_REASON_"):
        enum = enum.removeprefix(prefix)
    return enum.lower().replace("_", " ")


def _clip(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… [{len(text)} characters]"
