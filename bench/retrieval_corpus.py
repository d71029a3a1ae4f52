"""Real documents that every development machine has: this repository's, the standard library's, installed packages'.

Nothing of it is committed: it is read where it lies. Names are stable: the packages are those of the lock, and a
docstring keeps its dotted name from one Python to the next.
"""

import ast
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from kfm_server.memory.knowledge import SourceDocument

ROOT = Path(__file__).parents[1]
MIN_CHARACTERS = 200
"""A shorter docstring is no document."""
PACKAGES = (
    "aiohttp anyio asyncpg click google grpc hypothesis jinja2 jsonschema mcp numpy orjson packaging prometheus_client"
    " pydantic pygments pypdf rich starlette structlog typer urllib3 uvicorn yarl"
)
"""Whose docstrings are documents."""
_LEFT_OUT = (
    "test",
    "idlelib",
    "lib2to3",
    "_vendor",
    "site-packages",
    "encodings",
    "turtledemo",
    "ensurepip",
    "__",
)
_MEDIA = {".md": "text/markdown", ".rst": "text/plain", ".txt": "text/plain"}


def documents() -> Iterator[SourceDocument]:
    """All of them: some thousands, by name."""
    yield from _of_the_repository()
    library = Path(sysconfig.get_paths()["stdlib"])
    yield from _docstrings(library, "py")
    packages = Path(sysconfig.get_paths()["purelib"])
    for name in PACKAGES.split():
        if (packages / name).is_dir():
            yield from _docstrings(packages, "py", name)
    for found in sorted(distributions(), key=lambda d: d.metadata["Name"].lower()):
        yield from _description(found)


def texts(most: int) -> Iterator[str]:
    """Pieces of source code and prose of about 500 characters, all different, for as many vectors as are wanted."""
    seen = 0
    for root in ("purelib", "stdlib"):
        for path in sorted(Path(sysconfig.get_paths()[root]).rglob("*.py")):
            try:
                text = path.read_text("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            for at in range(0, len(text) - 300, 500):
                yield f"{path.stem} {at} {text[at : at + 500]}"
                seen += 1
                if seen == most:
                    return


def _of_the_repository() -> Iterator[SourceDocument]:
    names = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in sorted(names.stdout.split()):
        path = ROOT / name
        if path.is_file() and not name.startswith("docs/reference"):
            yield SourceDocument(f"repo:{name}", path.read_bytes(), "text/markdown")


def _docstrings(root: Path, prefix: str, package: str = "") -> Iterator[SourceDocument]:
    for path in sorted((root / package).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if any(part.startswith(_LEFT_OUT) and part != "__init__" for part in parts):
            continue
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        name = ".".join(part for part in parts if part != "__init__")
        yield from _of_node(tree, f"{prefix}:{name}", 0)


def _of_node(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: str, depth: int
) -> Iterator[SourceDocument]:
    text = ast.get_docstring(node)
    if text and len(text) >= MIN_CHARACTERS:
        dotted = name.partition(":")[2]
        yield SourceDocument(name, f"{dotted}\n\n{text}".encode("utf-8", "replace"), "text/plain", dotted)
    if depth < 2 and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        for child in node.body:
            if (
                isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
                and child.name[0] != "_"
            ):
                yield from _of_node(child, f"{name}.{child.name}", depth + 1)


def _description(found: Distribution) -> Iterator[SourceDocument]:
    name, metadata = found.metadata["Name"].lower(), found.metadata
    body = metadata.json.get("description", "")
    if isinstance(body, str) and len(body) >= MIN_CHARACTERS:
        media_type = str(metadata.json.get("description_content_type", "text/markdown")).partition(";")[0]
        media_type = media_type if media_type in _MEDIA.values() else "text/plain"
        yield SourceDocument(f"pkg:{name}", body.encode("utf-8", "replace"), media_type, name)
