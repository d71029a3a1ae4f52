"""What a model is shown of a long conversation: the latest exchanges as they were, and of the earlier ones what bears on the message.

Pure and without a model: the same conversation and message give the same window, on a replay as well. Earlier exchanges
are ranked by the words that they share with the message (BM25: Robertson and Zaragoza, 2009, with its usual constants),
shortened, and told in their order.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
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
MAX_WORDS: Final = 256
"""Words of the message by which it is decided what bears on it."""
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
    lines = [_line(exchange) for exchange in older]
    chosen: list[int] = []
    for index in _ranked(lines, message):
        room -= tokens_of((Message("system", lines[index]),))
        if room < 0 or len(chosen) == MAX_RECALLED:
            break
        chosen.append(index)
    return "\n".join((_HEAD, *(lines[index] for index in sorted(chosen)))) if chosen else ""


def _ranked(lines: Sequence[str], message: str) -> Sequence[int]:
    """Those that share a word with the message, the best first, of equals the later; last the first of all: it tends to
    say what the conversation is about. Ranked is what would be shown, so that long messages take no time.
    """
    texts = [Counter(_WORD.findall(line.casefold())) for line in lines]
    sizes = [text.total() for text in texts]
    mean = sum(sizes) / len(sizes)
    scores = [0.0] * len(texts)
    for word in _wanted(message):
        counts = [text[word] + text[word + "s"] for text in texts]
        having = sum(map(bool, counts))
        weight = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
        for index, count in enumerate(counts):
            if count:
                length = _K1 * (1 - _B + _B * sizes[index] / mean)
                scores[index] += weight * count * (_K1 + 1) / (count + length)
    found = [index for index, score in enumerate(scores) if score > 0]
    found.sort(key=lambda index: (-scores[index], -index))
    return found if 0 in found else [*found, 0]


def _wanted(message: str) -> Iterable[str]:
    """Its first words, each once, without case and the commonest English ending: `dogs` is `dog`."""
    found = _WORD.findall(message[: 16 * MAX_WORDS].casefold())
    return dict.fromkeys(word.removesuffix("s") if len(word) > 3 else word for word in found[:MAX_WORDS])


def _line(exchange: Exchange) -> str:
    said, answered = messages_of(exchange)
    return f"- user: {_short(said.text)}\n  you: {_short(answered.text)}"


def _short(text: str) -> str:
    flat = " ".join(text[: 4 * RECALLED_CHARACTERS].split())
    whole = len(flat) <= RECALLED_CHARACTERS and len(text) <= 4 * RECALLED_CHARACTERS
    return flat if whole else f"{flat[:RECALLED_CHARACTERS]}…"
