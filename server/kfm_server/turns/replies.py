"""The recorded output of a model step: what the model said, and which calls it asked for. Pure."""

from dataclasses import dataclass
from typing import Any

from kfm_server.canonical import parse_json


@dataclass(frozen=True, slots=True)
class AskedCall:
    """A tool call as the model wrote it: the arguments may be no JSON at all."""

    name: str
    arguments_json: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply. `cut` says that it ended at the bound on output tokens."""

    text: str
    calls: tuple[AskedCall, ...] = ()
    cut: bool = False

    def value(self) -> dict[str, Any]:
        """As a step's output keeps it."""
        out: dict[str, Any] = {"text": self.text}
        if self.calls:
            out["calls"] = [{"tool": call.name, "arguments": call.arguments_json} for call in self.calls]
        if self.cut:
            out["cut"] = True
        return out


def read_reply(output_json: str) -> Reply:
    """The reverse of `Reply.value`; an output that an operator settled may be any JSON: it counts as text."""
    value = parse_json(output_json or "null")
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        text = value if isinstance(value, str) else output_json
        return Reply(text)
    listed = value.get("calls", ())
    calls = tuple(
        AskedCall(str(call.get("tool", "")), str(call.get("arguments", "")))
        for call in (listed if isinstance(listed, list) else ())
        if isinstance(call, dict)
    )
    return Reply(value["text"], calls, value.get("cut") is True)


def json_in(text: str) -> Any:
    """The JSON value that a reply consists of, a fence around it aside. Raises ValueError."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and len(stripped) > 6:
        stripped = stripped[3:-3].removeprefix("json").strip()
    return parse_json(stripped)
