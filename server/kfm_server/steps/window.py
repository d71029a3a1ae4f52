"""What a model is shown of a long conversation: the latest exchanges as they were, and of the earlier ones what bears on the message.

Pure and without a model: the same conversation and message give the same window, on a replay as well. Earlier exchanges
are ranked by the words that they share with the message (BM25: Robertson and Zaragoza, 2009, with its usual constants),
shortened, and told in their order.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types

from kfm_server.ports.history import Exchange
from kfm_server.ports.models import Message
from kfm_server.steps.tokens import tokens_of

MAX_VERBATIM: Final = 20
"""Most exchanges that are shown as they were."""
MAX_EARLIER: Final = 400
"""Most exchanges before the current turn that are looked at."""
MAX_RECALLED: Final = 12
"""Most earlier exchanges that are recalled, shortened."""
RECALLED_CHARACTERS: Final = 400
"""Of each side of a recalled exchange, so much."""
_RECALL_SHARE: Final = 4
"""A quarter of the room is for what is recalled, if there is any."""
_K1, _B = 1.2, 0.75
_WORD: Final = re.compile(r"\w+")
_HEAD: Final = "Earlier in this conversation, shortened:"


@dataclass(frozen=True, slots=True)
class Window:
    """recalled: a text for the system prompt, empty if nothing is; exchanges: the latest, oldest first."""

    recalled: str
    exchanges: Sequence[Exchange]


def window_of(earlier: Sequence[Exchange], message: Sequence[types.Part], room: int) -> Window:
    """The window within `room` tokens. `earlier`: oldest first."""
    verbatim = _latest(earlier, room)
    older = earlier[: len(earlier) - len(verbatim)]
    if not older:
        return Window("", verbatim)
    # What is recalled has its share kept free, so that long exchanges do not push out all memory of the rest.
    verbatim = _latest(earlier, room - room // _RECALL_SHARE)
    older = earlier[: len(earlier) - len(verbatim)]
    return Window(_recalled(older, text_of(message), room // _RECALL_SHARE), verbatim)


def text_of(parts: Sequence[types.Part]) -> str:
    """Texts as they are; of an exchange's data only what no text says."""
    texts = [part.text for part in parts if part.WhichOneof("content") == "text"]
    data = [f"```json\n{part.data_json}\n```" for part in parts if part.WhichOneof("content") == "data_json"]
    return "\n\n".join((*texts, *data))


def messages_of(exchange: Exchange) -> tuple[Message, Message]:
    """An exchange as a model is shown it."""
    answer = "(no answer: the turn did not succeed)"
    if exchange.outcome == ev.OUTCOME_SUCCEEDED:
        answer = text_of(exchange.output) or "(done)"
    return Message("user", text_of(exchange.input)), Message("assistant", answer)


def _latest(earlier: Sequence[Exchange], room: int) -> Sequence[Exchange]:
    count = 0
    for exchange in reversed(earlier[-MAX_VERBATIM:]):
        room -= tokens_of(messages_of(exchange))
        if room < 0:
            break
        count += 1
    return earlier[len(earlier) - count :]


def _recalled(older: Sequence[Exchange], message: str, room: int) -> str:
    room -= tokens_of((Message("system", _HEAD),))
    lines: dict[int, str] = {}
    for index in _ranked(older, message):
        line = _line(older[index])
        room -= tokens_of((Message("system", line),))
        if room < 0:
            break
        lines[index] = line
        if len(lines) == MAX_RECALLED:
            break
    return "\n".join((_HEAD, *(lines[index] for index in sorted(lines)))) if lines else ""


def _ranked(older: Sequence[Exchange], message: str) -> Sequence[int]:
    """Exchanges that share a word with the message, the best first; of equals the later."""
    wanted = set(_words(message))
    texts = [Counter(_words(" ".join(m.text for m in messages_of(exchange)))) for exchange in older]
    sizes = [text.total() for text in texts]
    mean = sum(sizes) / len(sizes) or 1.0
    weights = {
        word: math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for word in wanted
        if (having := sum(word in text for text in texts))
    }
    scores = [
        sum(
            weight * text[word] * (_K1 + 1) / (text[word] + _K1 * (1 - _B + _B * size / mean))
            for word, weight in weights.items()
            if text[word]
        )
        for text, size in zip(texts, sizes, strict=True)
    ]
    found = [index for index, score in enumerate(scores) if score > 0]
    return sorted(found, key=lambda index: (-scores[index], -index))


def _words(text: str) -> list[str]:
    """Words, without case and the commonest English ending: `dogs` is `dog`."""
    return [word.removesuffix("s") if len(word) > 3 else word for word in _WORD.findall(text.casefold())]


def _line(exchange: Exchange) -> str:
    said, answered = messages_of(exchange)
    return f"- user: {_short(said.text)}\n  you: {_short(answered.text)}"


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= RECALLED_CHARACTERS else f"{flat[:RECALLED_CHARACTERS]}…"
