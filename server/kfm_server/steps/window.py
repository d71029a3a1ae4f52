"""What a model is shown of a long conversation: the latest exchanges as they were, and of the earlier ones what bears on the message.

Pure and without a model: the same conversation and message give the same window, on a replay as well. Earlier exchanges
are ranked by the words that they share with the message (BM25: Robertson and Zaragoza, 2009, with its usual constants),
shortened to an excerpt around what they share, and told in their order.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add
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
MAX_SEARCHED: Final = 1_000_000
"""Characters of earlier exchanges that are searched, in 0.16 s at most; where there are more, the longest are cut to one length.
A character of a text that is not ASCII counts as three: pairs of letters take that much longer."""
_RECALL_SHARE: Final = 4
"""A quarter of the room is for what is recalled, if there is any."""
_K1, _B = 1.2, 0.75
_UNSPACED: Final = r"\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff"
"""Letters of scripts that set no space between words: there, each two neighbours count as a word."""
_WORD: Final = re.compile(rf"[^\W{_UNSPACED}]+")
_RUN: Final = re.compile(rf"[{_UNSPACED}]{{2,}}")
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
    sides = [tuple(side.text for side in messages_of(exchange)) for exchange in older]
    searched = _share([len(text) * _cost(text) for side in sides for text in side])
    wanted = _wanted(message)
    ranked, weights = _ranked(
        ["\n".join(text[: searched // _cost(text)] for text in side) for side in sides], wanted
    )
    lines: dict[int, str] = {}
    for index in ranked[:MAX_RECALLED]:
        said, answered = (_excerpt(text, searched, wanted, weights) for text in sides[index])
        line = f"- user: {said}\n  you: {answered}"
        room -= tokens_of((Message("system", line),))
        if room < 0:
            break
        lines[index] = line
    return "\n".join((_HEAD, *(lines[index] for index in sorted(lines)))) if lines else ""


def _cost(text: str) -> int:
    return 1 if text.isascii() else 3


def _share(sizes: Sequence[int]) -> int:
    """The length at which texts are cut so that they take MAX_SEARCHED together."""
    left = MAX_SEARCHED
    for before, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - before)
        if size > share:
            return share
        left -= size
    return MAX_SEARCHED


def _ranked(texts: Sequence[str], wanted: Mapping[str, str]) -> tuple[Sequence[int], Mapping[str, float]]:
    """Those that share a word with the message, the best first, of equals the later; last the first of all: it tends to
    say what the conversation is about. And what each word weighs: the rarer, the more.
    """
    sizes: list[int] = []
    shared: list[Counter[str]] = []
    for text in texts:
        words = _words(text)
        sizes.append(len(words))
        shared.append(Counter([wanted[word] for word in words if word in wanted]))
    mean = sum(sizes) / len(sizes)
    having = Counter(word for counts in shared for word in counts)
    weights = {word: math.log(1 + (len(texts) - n + 0.5) / (n + 0.5)) for word, n in having.items()}
    scores: dict[int, float] = {}
    for index, counts in enumerate(shared):
        if counts:
            length = _K1 * (1 - _B + _B * sizes[index] / mean)
            scores[index] = sum(weights[word] * n * (_K1 + 1) / (n + length) for word, n in counts.items())
    found = sorted(scores, key=lambda index: (-scores[index], -index))
    return found if 0 in scores else [*found, 0], weights


def _words(text: str) -> list[str]:
    folded = text.casefold()
    words = _WORD.findall(folded)
    for run in () if folded.isascii() else _RUN.findall(folded):
        words += map(add, run, run[1:])
    return words


def _wanted(message: str) -> Mapping[str, str]:
    """Its first words, each under the forms in which it is looked for: with the commonest English ending and without."""
    stems = [
        word.removesuffix("s") if len(word) > 3 else word
        for word in _words(message[: 16 * MAX_WORDS])[:MAX_WORDS]
    ]
    return {f"{word}s": word for word in stems} | {word: word for word in stems}


def _excerpt(text: str, searched: int, wanted: Mapping[str, str], weights: Mapping[str, float]) -> str:
    """The part that shares most with the message, marked where it is cut; the head if none does."""
    head = text[: searched // _cost(text)]
    flat = " ".join(head.split())
    more = len(text) > len(head)
    if len(flat) <= RECALLED_CHARACTERS:
        return f"{flat}…" if more else flat
    # A quarter of the excerpt stands before the first word that is shared, and as much after the last.
    lead = RECALLED_CHARACTERS // 4
    begin = max(_densest(flat, RECALLED_CHARACTERS - 2 * lead, wanted, weights) - lead, 0)
    begin = min(begin, len(flat) - RECALLED_CHARACTERS)
    end = begin + RECALLED_CHARACTERS
    return f"{'…' if begin else ''}{flat[begin:end]}{'…' if more or end < len(flat) else ''}"


def _densest(text: str, span: int, wanted: Mapping[str, str], weights: Mapping[str, float]) -> int:
    """Where the first part begins whose words, of those that begin within `span` characters, weigh most together."""
    hits = sorted(_hits(text, wanted))
    held: Counter[str] = Counter()
    weight = most = 0.0
    place = first = 0
    for at, word in hits:
        while at - hits[first][0] > span:
            left = hits[first][1]
            held[left] -= 1
            weight -= 0 if held[left] else weights.get(left, 0)
            first += 1
        weight += 0 if held[word] else weights.get(word, 0)
        held[word] += 1
        if weight > most + 1e-9:
            most, place = weight, hits[first][0]
    return place


def _hits(text: str, wanted: Mapping[str, str]) -> Iterable[tuple[int, str]]:
    places = [(found.start(), found[0].casefold()) for found in _WORD.finditer(text)]
    for run in _RUN.finditer(text):
        places += enumerate(map(add, run[0], run[0][1:]), run.start())
    return ((at, wanted[word]) for at, word in places if word in wanted)
