"""A host that cannot confine processes, made from one that can: `python -m tests.support.unconfining CALLS ARGUMENTS...`.

Runs Python with the arguments where the system calls of the list CALLS (names, with commas between) are forbidden.
"""

import os
import sys
from pathlib import Path

from kfm_server.sandbox.inside import kernel, seccomp


def python_without(directory: Path, *calls: str) -> str:
    """The path of a Python, made in the directory, for whose processes these system calls are forbidden."""
    made = directory / "python"
    root = Path(__file__).parents[2]
    made.write_text(
        f'#!/bin/sh\nPYTHONPATH="{root}:$PYTHONPATH" exec {sys.executable} -m {__name__} {",".join(calls)} "$@"\n'
    )
    made.chmod(0o755)
    return str(made)


if __name__ == "__main__":
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(seccomp.deny(*sys.argv[1].split(",")))
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
