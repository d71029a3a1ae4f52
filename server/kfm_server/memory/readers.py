"""Documents as text: Markdown and plain text as they are, HTML and PDF turned into it. Bounded, and bounds are named."""

import asyncio
import codecs
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from kfm_server.canonical import clean_text
from kfm_server.memory.pdf import CPU_SECONDS, MAX_PAGES, REFUSED, WALL_SECONDS
from kfm_server.ports.memory import MemoryInvalid

MAX_BYTES: Final = 20 * 1024 * 1024
"""Largest document, as it comes."""
MAX_TEXT: Final = 8 * 1024 * 1024
"""Longest text of a document, in characters."""
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
_BLOCK_TAGS: Final = """
address article aside blockquote body dd details div dl dt fieldset figcaption figure footer form header hr html
li main nav ol p pre section summary table tbody td tfoot th thead tr ul h1 h2 h3 h4 h5 h6
"""
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_SKIPPED = frozenset(
    {"head", "script", "style", "noscript", "template", "svg", "iframe", "object", "-comment"}
)
_HEADING = re.compile(r"h([1-6])")
_SPACES = re.compile(r"[ \t\r\f\v\n]+")
_EMPTY_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")
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
            found = await asyncio.to_thread(_html, _decoded(source, body, html=True))
        case "application/pdf":
            found = await _pdf(source, body)
        case other:
            known = ", ".join(sorted(set(MEDIA_TYPES.values())))
            raise MemoryInvalid(f"{source[:200]}: the media type {other[:80]!r} is not read; {known} are")
    text = clean_text(found.text.replace("\r\n", "\n").replace("\r", "\n"))
    if len(text) > MAX_TEXT:
        raise MemoryInvalid(f"{source[:200]}: {len(text)} characters of text are over max_text={MAX_TEXT}")
    title = (
        found.title or (_title(text) if found.markdown else _plain_title(text)) or source.rpartition("/")[2]
    )
    return ReadDocument(_SPACES.sub(" ", title).strip()[:_TITLE], text, found.markdown)


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


def _html(text: str) -> ReadDocument:
    """As Markdown. Walks with a stack of its own: a page may be nested deeper than calls can be."""
    from selectolax.lexbor import LexborHTMLParser

    parser: Any = LexborHTMLParser(text)
    found = parser.css_first("title")
    title = found.text() if found is not None else ""
    written: list[str] = []
    todo: list[tuple[Any, bool, int]] = [(parser.root, False, 0)] if parser.root is not None else []
    while todo:
        node, leaving, pre = todo.pop()
        tag = node.tag
        if tag == "-text":
            told = node.text_content or ""
            written.append(told if pre else _SPACES.sub(" ", told))
            continue
        if tag in _SKIPPED:
            continue
        if leaving:
            written.append(
                "\n```\n" if tag == "pre" else "\n\n" if tag not in ("li", "tr", "td", "th") else "\n"
            )
            continue
        if tag == "br":
            written.append("\n")
        elif tag in ("td", "th"):
            written.append(" | ")
        elif tag in _BLOCKS:
            heading = _HEADING.fullmatch(tag)
            opened = f"{'#' * int(heading[1])} " if heading else {"li": "- ", "pre": "```\n"}.get(tag, "")
            written.append(("\n" if tag == "li" else "\n\n") + opened)
            if tag not in ("td", "th"):
                todo.append((node, True, pre))
        inside = pre + (tag == "pre")
        child = node.last_child
        while child is not None:
            todo.append((child, False, inside))
            child = child.prev
    lines = "".join(written).split("\n")
    return ReadDocument(
        title, _EMPTY_LINES.sub("\n\n", "\n".join(line.rstrip() for line in lines)).strip(), True
    )


async def _pdf(source: str, body: bytes) -> ReadDocument:
    """In a process of its own, with bounds on its time and memory: a PDF is a program of sorts."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "kfm_server.memory.pdf",
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
            f"{source[:200]}: this PDF cannot be read within cpu_seconds={CPU_SECONDS}, and the memory for {MAX_PAGES} pages"
        )
    title, _, text = out.decode("utf-8", "replace").partition("\0")
    return ReadDocument(title, text, False)
