"""Where a server listens, and the file that says so."""

import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the doors listen, after binding; and the embedded database's directory, empty if there is none."""

    grpc: str
    http: str
    data: str


@contextlib.contextmanager
def told(home: Path, endpoints: Endpoints) -> Generator[None]:
    """endpoints.json says where the doors listen, until they are closed."""
    text = orjson.dumps({"grpc": endpoints.grpc, "http": endpoints.http})
    fresh, file = home / "endpoints.json.new", home / "endpoints.json"
    fresh.write_bytes(text)
    fresh.replace(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if file.read_bytes() == text:  # and not those of a server that came after
                file.unlink()
