"""A page as Markdown; as a program too, from standard input to standard output, for pages that may take long."""

import re
import sys
from typing import Any, Final

from kfm_server.memory.pdf import bound

SPACES: Final = re.compile(r"[ \t\r\f\v\n]+")
_BLOCK_TAGS: Final = """
address article aside blockquote body dd details div dl dt fieldset figcaption figure footer form header hr html
li main nav ol p pre section summary table tbody td tfoot th thead tr ul h1 h2 h3 h4 h5 h6
"""
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_SKIPPED = frozenset(
    {"head", "script", "style", "noscript", "template", "svg", "iframe", "object", "-comment"}
)
_HEADING = re.compile(r"h([1-6])")
_EMPTY_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")


def markdown_of(page: str) -> tuple[str, str]:
    """Its title, empty if it has none, and its text. Walks with a stack of its own: a page may be nested deeper than calls can be."""
    from selectolax.lexbor import LexborHTMLParser

    parser: Any = LexborHTMLParser(page)
    found = parser.css_first("title")
    title = found.text() if found is not None else ""
    written: list[str] = []
    todo: list[tuple[Any, bool, int]] = [(parser.root, False, 0)] if parser.root is not None else []
    while todo:
        node, leaving, pre = todo.pop()
        tag = node.tag
        if tag == "-text":
            told = node.text_content or ""
            written.append(told if pre else SPACES.sub(" ", told))
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
    return title, _EMPTY_LINES.sub("\n\n", "\n".join(line.rstrip() for line in lines)).strip()


def main() -> int:
    """Title, a null character, and the text."""
    page = sys.stdin.buffer.read().decode()
    bound(int(sys.argv[1]))
    title, text = markdown_of(page)
    sys.stdout.buffer.write("\0".join((title.replace("\0", ""), text)).encode("utf-8", "replace"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
