"""Asking the person behind the client, as a convenience: a form for the step that waits, where the client shows forms.

The answer comes from the client's own host and proves nothing about a person; so it is only asked for where the tools
that settle steps are on anyway.
"""

import json
from collections.abc import Mapping
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from kfm_mcp.arguments import Refused
from kfm_mcp.catalogue import Json

LONGEST_S = 45.0
"""Seconds for which a call stays open for a person; then the turn waits on without it."""
_NEEDS = {"STEP_STATE_WAITING": "answer", "STEP_STATE_NEEDS_REVIEW": "settle"}
_VERDICTS = {"succeeded": "SETTLE_AS_SUCCEEDED", "failed": "SETTLE_AS_FAILED", "retry": "SETTLE_AS_RETRY"}

Context = ServerRequestContext[Any, Any]


def shows_forms(context: Context) -> bool:
    """Whether the client said that it can show a form."""
    params = context.session.client_params
    can = params.capabilities.elicitation if params is not None else None
    return can is not None and (can.form is not None or can.url is None)


def waiting_steps(turn: Json) -> list[Json]:
    """The steps of a turn that need a person."""
    return [step for step in turn.get("steps", []) if step.get("state") in _NEEDS]


async def ask(
    context: Context, step: Json, responses: Mapping[str, Any] | None
) -> tuple[str, Json] | InputRequiredResult | None:
    """What the person said: the tool to call and its arguments beside the turn's id. None if they would not, or did not in time.

    In the newer era the question goes out as the call's result, and the call comes again with the answer.
    """
    form = form_of(step)
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        given = (responses or {}).get(name_of(step))
        if given is None:
            return InputRequiredResult(input_requests={name_of(step): ElicitRequest(params=form)})
        return said(step, given) if isinstance(given, ElicitResult) else None
    if not context.session.can_send_request:
        return None
    with anyio.move_on_after(LONGEST_S):
        try:
            given = await context.session.elicit_form(form.message, form.requested_schema, context.request_id)
        except MCPError:
            return None  # the client does not show it after all: the turn waits on
        return said(step, given)
    return None


def name_of(step: Json) -> str:
    """The question's name: another attempt of the same step is another question."""
    return f"{_NEEDS[step['state']]}:{step['definition']['key']}:{len(step.get('attempts', []))}"


def form_of(step: Json) -> ElicitRequestFormParams:
    """The question of a step that needs a person."""
    definition = step["definition"]
    if _NEEDS[step["state"]] == "answer":
        question = definition.get("instructions") or f"Step {definition['key']} asks for an answer."
        field: Json = {"type": "string", "title": "Answer", "description": "Text, or JSON", "minLength": 1}
        name = "answer"
    else:
        tool = definition.get("tool") or definition["key"]
        question = f"Nobody knows whether step {definition['key']} ({tool}) took effect. Please look, and say how it ended."
        field = {"type": "string", "title": "How it ended", "enum": list(_VERDICTS)}
        name = "ended"
    schema: Json = {"type": "object", "properties": {name: field}, "required": [name]}
    return ElicitRequestFormParams(message=question[:2_000], requested_schema=schema)


def form_back(given: Any) -> ElicitResult:
    """A form that came back as JSON. Refused."""
    try:
        return ElicitResult.model_validate(given)
    except ValidationError:
        raise Refused("A response is none to a form: it needs an action, and content to accept.") from None


def said(step: Json, given: ElicitResult) -> tuple[str, Json] | None:
    """What a form that came back says: the tool to call and its arguments beside the turn's id; None if it was declined. Refused."""
    key: str = step["definition"]["key"]
    if given.action != "accept":
        return None
    content = given.content or {}
    if _NEEDS[step["state"]] == "answer":
        text = content.get("answer")
        if not isinstance(text, str) or not text:
            raise Refused("The form came back without its field 'answer'; call again.")
        return "kfm_step_answer", {"step_key": key, "output_json": _as_json(text)}
    verdict = content.get("ended")
    if verdict not in _VERDICTS:
        raise Refused(f"The form's field 'ended' must be one of {', '.join(_VERDICTS)}; call again.")
    return "kfm_step_settle", {
        "step_key": key,
        "settle_as": _VERDICTS[str(verdict)],
        "reason": "said in the client's form",
    }


def _as_json(text: str) -> str:
    try:
        json.loads(text)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)
    return text
