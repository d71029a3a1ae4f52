"""Documents as text: Markdown and plain text as they are, HTML and PDF turned into it. Bounded, and bounds are named."""

import asyncio
import codecs
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from kfm_server.canonical import clean_text
from kfm_server.memory.html import SPACES, markdown_of
from kfm_server.memory.pdf import MEMORY_BYTES, REFUSED
from kfm_server.ports.memory import MemoryInvalid

MAX_BYTES: Final = 20 * 1024 * 1024
"""Largest document, as it comes."""
MAX_TEXT: Final = 8 * 1024 * 1024
"""Longest text of a document, in characters."""
SMALL_PAGE: Final = 65_536
"""Characters of an HTML page that are read in this process; that takes under a second, whatever they are."""
CPU_SECONDS: Final = 60
"""Longest that the process which reads one PDF or larger page may compute."""
WALL_SECONDS: Final = 120.0
MEDIA_TYPES: Final = {
    "md": "text/markdown",
    "markdown": "text/markdown",
    "txt": "text/plain",
    "rst": "text/plain",
    "text": "text/plain",
    "html": "text/html",
    "htm": "text/html",
    "xhtml": "text/html",
    "pdf": "application/pdf",
}
"""What is read, by the end of a document's name."""
_TITLE = 200
_SETEXT = re.compile(r"^(\S[^\n]{0,198})\n(=|-|~){3,}[ \t]*$", re.MULTILINE)
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ReadDocument:
    """A document's text. `markdown`: it has headings, lists and code as Markdown writes them."""

    title: str
    text: str
    markdown: bool


def media_type_of(source: str) -> str:
    """By the end of its name. Raises MemoryInvalid for one that is not read."""
    ending = source.rpartition(".")[2].lower() if "." in source.rpartition("/")[2] else ""
    if ending not in MEDIA_TYPES:
        known = ", ".join(sorted(MEDIA_TYPES))
        raise MemoryInvalid(f"{source[:200]}: documents are read that end with {known}")
    return MEDIA_TYPES[ending]


async def read_document(source: str, media_type: str, body: bytes) -> ReadDocument:
    """The text of a document, off the event loop. Raises MemoryInvalid, which names the limit that it is over."""
    if len(body) > MAX_BYTES:
        raise MemoryInvalid(f"{source[:200]}: {len(body)} bytes are over max_bytes={MAX_BYTES}")
    match media_type.partition(";")[0].strip().lower():
        case "text/markdown":
            found = ReadDocument("", _decoded(source, body), True)
        case "text/plain":
            found = ReadDocument("", _decoded(source, body), False)
        case "text/html" | "application/xhtml+xml":
            found = await _html(source, _decoded(source, body, html=True))
        case "application/pdf":
            found = ReadDocument(*await _elsewhere("kfm_server.memory.pdf", source, body), False)
        case other:
            known = ", ".join(sorted(set(MEDIA_TYPES.values())))
            raise MemoryInvalid(f"{source[:200]}: the media type {other[:80]!r} is not read; {known} are")
    text = clean_text(found.text.replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) > MAX_TEXT:
        raise MemoryInvalid(f"{source[:200]}: {len(text)} characters of text are over max_text={MAX_TEXT}")
    title = (
        found.title or (_title(text) if found.markdown else _plain_title(text)) or source.rpartition("/")[2]
    )
    return ReadDocument(SPACES.sub(" ", title).strip()[:_TITLE], text, found.markdown)


def _decoded(source: str, body: bytes, *, html: bool = False) -> str:
    if body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charset = "utf-16"
    elif b"\0" in body[:4096]:
        raise MemoryInvalid(f"{source[:200]}: this is no text")
    else:
        named = _META_CHARSET.search(body[:2048]) if html else None
        charset = named[1].decode("ascii") if named else "utf-8-sig"
    with suppress(LookupError, UnicodeError):
        return body.decode(charset)
    return body.decode("utf-8", "replace")


def _title(text: str) -> str:
    for line in text.split("\n", 60)[:60]:
        if line.startswith("# "):
            return line[2:].strip(" #\t")
    return _plain_title(text)


def _plain_title(text: str) -> str:
    """An underlined line near the beginning, or else the first line with a word."""
    found = _SETEXT.search(text[:4000])
    if found:
        return found[1]
    return next((line.strip(" #*=-") for line in text[:4000].split("\n") if re.search(r"\w", line)), "")


async def _html(source: str, page: str) -> ReadDocument:
    """A parser by the rules of HTML may take time by the square of a page: a large one is read where that can be ended."""
    if len(page) <= SMALL_PAGE:
        title, text = await asyncio.to_thread(markdown_of, page)
    else:
        title, text = await _elsewhere("kfm_server.memory.html", source, page.encode("utf-8", "replace"))
    return ReadDocument(title, text, True)


async def _elsewhere(program: str, source: str, body: bytes) -> tuple[str, str]:
    """Title and text, by a process with bounds on its time and memory: a document can be a program of sorts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        program,
        str(CPU_SECONDS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(WALL_SECONDS):
            out, _ = await process.communicate(body)
    except TimeoutError:
        raise MemoryInvalid(
            f"{source[:200]}: reading it took longer than wall_seconds={WALL_SECONDS:g}"
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode == REFUSED:
        raise MemoryInvalid(f"{source[:200]}: {out.decode('utf-8', 'replace')[:300]}")
    if process.returncode:
        raise MemoryInvalid(
            f"{source[:200]}: this cannot be read within cpu_seconds={CPU_SECONDS} and"
            f" max_memory={MEMORY_BYTES >> 20} MiB"
        )
    title, _, text = out.decode("utf-8", "replace").partition("\0")
    return title, text
