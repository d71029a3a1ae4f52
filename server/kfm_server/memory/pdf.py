"""The text of a PDF, from standard input to standard output: a program, so that what breaks it breaks nothing else."""

import io
import sys
from contextlib import suppress
from typing import Final

MAX_PAGES: Final = 2000
"""Most pages of a PDF."""
MEMORY_BYTES: Final = 1 << 30
"""Address space of the process that reads one."""
REFUSED: Final = 3
"""Its exit code when it says why, on standard output."""


def bound(cpu_seconds: int) -> None:
    """Give up most of what a process may take. Where the system has no such limits, the caller's clock remains."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with suppress(ValueError, OSError):  # macOS has none
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def main() -> int:
    """Title, a null character, and the text of all pages."""
    body = sys.stdin.buffer.read()
    bound(int(sys.argv[1]))
    import logging

    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.disable(logging.CRITICAL)
    try:
        reader = PdfReader(io.BytesIO(body))
        if reader.is_encrypted and not reader.decrypt(""):
            return _refuse("this PDF is encrypted")
        pages = len(reader.pages)
        if pages > MAX_PAGES:
            return _refuse(f"{pages} pages are over max_pages={MAX_PAGES}")
        title = str((reader.metadata and reader.metadata.title) or "").replace("\0", "")
        text = "\n\n".join(page.extract_text().replace("\0", "") for page in reader.pages)
    except (
        PyPdfError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
        OverflowError,
    ):
        return _refuse("this is no PDF that can be read")
    sys.stdout.buffer.write(f"{title}\0{text}".encode("utf-8", "replace"))
    return 0


def _refuse(why: str) -> int:
    sys.stdout.buffer.write(why.encode())
    return REFUSED


if __name__ == "__main__":
    sys.exit(main())
