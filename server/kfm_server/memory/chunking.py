"""Documents in chunks: pieces that are small enough to be found and large enough to be understood."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kfm_server.memory.readers import ReadDocument
from kfm_server.ports.memory import MemoryInvalid

CHUNK_CHARACTERS: Final = (400, 1200)
"""A chunk grows to the first and may grow to the second where that keeps a section or paragraph whole."""
OVERLAP: Final = 100
"""Characters that the chunks of plain text share; those of Markdown end where sections and paragraphs do."""
MAX_CHUNKS: Final = 20_000
"""Most chunks of a document."""
_HEADINGS = re.compile(r"^(#{1,6})[ \t]+(\S[^\n]*)$", re.MULTILINE)
_FENCE = re.compile(r"^(```|~~~)", re.MULTILINE)
_HEADING = 200


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece. `heading`: the headings above it, outermost first, with ` > ` between them."""

    heading: str
    text: str


def chunked(source: str, document: ReadDocument) -> list[Chunk]:
    """The chunks of a document, in order. Raises MemoryInvalid for one that has too many."""
    from semantic_text_splitter import MarkdownSplitter, TextSplitter

    if document.markdown:
        pieces = MarkdownSplitter(CHUNK_CHARACTERS).chunk_indices(document.text)
        headings = list(_headings(document.text))
    else:
        pieces = TextSplitter(CHUNK_CHARACTERS, overlap=OVERLAP).chunk_indices(document.text)
        headings = []
    if len(pieces) > MAX_CHUNKS:
        raise MemoryInvalid(f"{source[:200]}: {len(pieces)} chunks are over max_chunks={MAX_CHUNKS}")
    chunks: list[Chunk] = []
    path: list[tuple[int, str]] = []
    at = 0
    for start, text in pieces:
        # A heading that begins the chunk is in its text: above it are those before.
        while at < len(headings) and headings[at][0] <= start:
            _, level, told = headings[at]
            path = [*(h for h in path if h[0] < level), (level, told)]
            at += 1
        if re.search(r"\w", text):
            chunks.append(Chunk(" > ".join(told for _, told in path)[:_HEADING], text))
    return chunks


def _headings(text: str) -> Iterator[tuple[int, int, str]]:
    """Place, level and words of each heading that is not in a block of code."""
    fences = [match.start() for match in _FENCE.finditer(text)]
    passed = 0
    for match in _HEADINGS.finditer(text):
        while passed < len(fences) and fences[passed] < match.start():
            passed += 1
        if passed % 2 == 0:
            yield match.start(), len(match[1]), match[2].strip(" #\t")
