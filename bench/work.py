"""The work of one turn for our own server: a given plan of three steps, one after the other."""

import json
import uuid

from kfm.event.v1 import turn_events_pb2 as events
from kfm.turn.v1 import turn_pb2 as turns
from kfm.turn.v1 import turn_service_pb2 as service
from kfm.type.v1 import type_pb2 as types

ARGUMENTS = {"calculator": {"expression": "1+1"}}
OTHERS: dict[str, object] = {"n": 1}
"""What the tools of bench.tools take."""


def plan(tool: str, steps: int = 3) -> str:
    """The input's JSON: so many steps of the tool, one after the other."""
    planned = [
        {
            "key": f"s{n}",
            "kind": "tool",
            "tool": tool,
            "arguments": ARGUMENTS.get(tool, OTHERS),
            "depends_on": [f"s{n - 1}"] if n > 1 else [],
        }
        for n in range(1, steps + 1)
    ]
    return json.dumps({"plan": {"steps": planned}})


def request(body: str) -> service.RunTurnRequest:
    """A request for a turn in a session of its own, under a fresh key."""
    return service.RunTurnRequest(
        turn=turns.TurnSpec(input=[types.Part(data_json=body)]), idempotency_key=uuid.uuid4().hex
    )


def state_change(
    response: service.RunTurnResponse | service.WatchTurnResponse, change: events.TurnChange
) -> events.TurnStateEvent | None:
    """The event of this change of the turn, if this response carries it."""
    for update in response.updates:
        if update.event.type == "TurnStateEvent.v1":
            state = events.TurnStateEvent.FromString(update.event.payload.value)
            if state.change == change:
                return state
    return None


def finished(response: service.RunTurnResponse | service.WatchTurnResponse) -> events.TurnStateEvent | None:
    """The terminal event, if this response carries it."""
    return state_change(response, events.TURN_CHANGE_FINISHED)
