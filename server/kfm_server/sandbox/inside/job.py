"""One call, in a child that dies with it: the last walls, then the code."""

import ast
import contextlib
import errno
import json
import os
import resource
import sys
import types
from typing import Any, NoReturn

from kfm_server.sandbox.inside import kernel, landlock
from kfm_server.sandbox.inside.frames import receive
from kfm_server.sandbox.inside.walls import SCRATCH

SNIPPET = "<code>"
READY = b"R"
"""Told once the call has been read; what comes on standard input from then on is not the call's."""
MAX_TEXT = 8192
"""Most that is told of an exception, in characters."""


def run(limits: dict[str, Any], rules: int, result: int, printed: int) -> NoReturn:
    """Read a call and run it, and tell its end on `result`: V and a JSON value, L and a limit, or E and the error."""
    own, file = os.getpid(), SNIPPET
    content = receive()
    os.write(result, READY)
    try:
        _close_in(limits, rules, result, printed)
        request: dict[str, Any] = json.loads(content)
        file = request["file"] or SNIPPET
        sys.path[:0] = limits["path"]
        told = b"V" + _value(request)
    except BaseException as error:  # whatever code raises is its end
        told = _told(error, file)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # it may have closed them
        sys.stdout.flush()
        sys.stderr.flush()
    while told and os.getpid() == own:  # what the code forked has no say
        told = told[os.write(result, told) :]
    os._exit(0)


def rehearse() -> None:
    """What a call needs, done once with code of our own: what it makes ready is ready for every call."""
    main = sys.modules["__main__"]
    json.dumps(_snippet("def ready(n):\n    return {'ready': [n, 1.5]}\nready(one)", {"one": 1}))
    sys.modules["__main__"] = main


def _close_in(given: dict[str, Any], rules: int, result: int, printed: int) -> None:
    """From here on nothing is trusted any more."""
    os.setsid()  # signals to its group reach nothing but itself
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    kept = sorted((rules, result))
    for first, last in zip((2, *kept), (*kept, 4096), strict=True):
        os.closerange(first + 1, last)
    os.chdir(SCRATCH)
    limits = [
        (resource.RLIMIT_AS, given["memory_bytes"], 0),
        (resource.RLIMIT_CPU, given["cpu_seconds"], 1),
        (resource.RLIMIT_FSIZE, given["scratch_bytes"], 0),
        (resource.RLIMIT_NOFILE, 64, 0),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_SIGPENDING, 64, 0),  # of timers, too
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_NPROC, given["processes"] + 2, 0),  # and the two that wait for it
    ]
    for limit, value, more in limits:
        resource.setrlimit(limit, (value, value + more))
    kernel.set_capabilities(0)
    landlock.restrict(rules)
    os.close(rules)


def _value(request: dict[str, Any]) -> bytes:
    arguments: dict[str, Any] = request["arguments"]
    if request["file"]:
        value = _function(request["file"], request["function"])(**arguments)
    else:
        value = _snippet(request["source"], arguments)
    return json.dumps(value, allow_nan=False, ensure_ascii=True).encode()


def _function(file: str, name: str) -> Any:
    """Compiled from its source, whatever bytecode lies beside it."""
    with open(file, "rb") as opened:
        source = opened.read()
    module_name = os.path.basename(file).removesuffix(".py")
    module = sys.modules[module_name] = types.ModuleType(module_name)
    module.__file__ = file
    exec(compile(source, file, "exec", dont_inherit=True), module.__dict__)  # noqa: S102  # what the walls are for
    found = getattr(module, name, None)
    if not callable(found):
        raise AttributeError(f"{os.path.basename(file)} has no function {name}")
    return found


def _snippet(source: str, arguments: dict[str, Any]) -> Any:
    tree = ast.parse(source, SNIPPET)
    last = tree.body[-1] if tree.body else None
    if isinstance(last, ast.Expr):
        kept = ast.Assign([ast.Name("__value__", ast.Store())], last.value)
        tree.body[-1] = ast.fix_missing_locations(ast.copy_location(kept, last))
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__dict__.update(arguments)
    exec(compile(tree, SNIPPET, "exec", dont_inherit=True), module.__dict__)  # noqa: S102
    return module.__dict__.get("__value__")


def _told(error: BaseException, file: str) -> bytes:
    limit = _limit(error)
    if limit:
        return b"L" + limit.encode()
    line, trace = 0, error.__traceback__
    if isinstance(error, SyntaxError) and error.filename == file:
        line = error.lineno or 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = str(error.msg if isinstance(error, SyntaxError) else error)[:MAX_TEXT]
        text = text.encode(errors="replace").decode()
    except Exception:
        text = ""
    told = {"kind": type(error).__name__[:100], "text": text, "line": line}
    return b"E" + json.dumps(told, ensure_ascii=True).encode()


def _limit(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "memory_bytes"
    if isinstance(error, OSError):
        if error.errno in (errno.EFBIG, errno.ENOSPC):
            return "scratch_bytes"
        if error.errno == errno.EAGAIN:
            return "processes"
        if error.errno == errno.ENOMEM:
            return "memory_bytes"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "processes"
    return ""
