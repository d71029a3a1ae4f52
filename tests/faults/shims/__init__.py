"""Small C libraries for LD_PRELOAD: the machine as a process sees it, made worse."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


def shim(name: str) -> Path:
    """Compile `<name>.c` to a library that any account can load; skips the test where that cannot be."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT SHOWN HERE: there is no C compiler (cc) for the shim")
    made = Path(tempfile.mkdtemp(prefix="kfm-shim-"))
    made.chmod(0o755)
    library = made / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode:
        pytest.skip(f"NOT SHOWN HERE: the shim does not compile: {done.stderr[-300:]}")
    return library
