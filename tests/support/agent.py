"""A server in this process whose model follows a script, for tests of what clients see."""

from typing import Any

SCRIPT: dict[str, Any] = {
    "rules": [
        {"user": "structured", "reply": {"json": {"result": 42, "why": "because"}}},
        {"user": "think", "step": 0, "reply": {"reasoning": "hm, hm", "text": "Well."}},
        {
            "user": "twice",
            "failure": {"kind": "cut", "after_chunks": 1, "first": 1},
            "reply": {"text": "one two three four", "chunks": 4},
        },
        {
            "user": "compute (?P<sum>.+)",
            "step": 0,
            "reply": {"tools": [{"name": "calculator", "arguments": {"expression": "{{sum}}"}}]},
        },
        {"step": 1, "reply": {"text": "It is {{results}}."}},
        {"reply": {"text": "You said {{last_user}}.", "input_tokens": 7, "output_tokens": 5}},
    ]
}
