"""The first process of a sandbox: takes calls from the server, one at a time, and forks a child for each.

It never runs a line that it was sent: only its children do, behind walls of their own. Frames go both ways over its
standard input and output: four bytes of length, then so many bytes. A call is one frame of JSON; its end is three:
JSON that says how, what the child told, and what it printed.
"""

import base64
import collections
import contextlib
import csv
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import gc
import hashlib
import inspect
import io
import itertools
import json
import math
import os
import pathlib
import random
import re
import resource
import select
import signal
import statistics
import string
import sys
import textwrap
import time
import typing
import uuid
from typing import Any, NoReturn

from kfm_server.sandbox.inside import job, kernel, landlock, seccomp, walls

WARM = (
    base64, collections, contextlib, csv, dataclasses, datetime, decimal, enum, fractions, functools, hashlib, inspect,
    io, itertools, math, pathlib, random, re, statistics, string, textwrap, typing, uuid,
)  # fmt: skip
"""What code imports often: read once here, and found ready by every call."""
_MEMORY = 512 * 1024 * 1024
_READ = 65536


def main(read_only: list[str]) -> NoReturn:
    """Confine this process and serve calls until standard input ends."""
    os.closerange(3, 65536)
    try:
        walls.go_in(read_only)
        rules = landlock.ruleset(os.path.dirname(walls.SCRATCH))
        _settle()
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(seccomp.program())
    except OSError as error:
        _send(json.dumps({"refused": error.strerror or str(error)}).encode())
        os._exit(1)
    _send(b'{"ready":true}')
    while True:
        request = json.loads(_receive())
        for frame in _call(request, rules):
            _send(frame)


def _settle() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever is inside signals its first process in vain
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    os.environ.clear()
    os.environ.update(HOME=walls.SCRATCH, TMPDIR=walls.SCRATCH, LANG="C.UTF-8")
    sys.dont_write_bytecode = True
    sys.path[:] = [p for p in sys.path if p.startswith(os.path.dirname(os.__file__)) and "-packages" not in p]
    sys.path_importer_cache.clear()
    job.rehearse()
    gc.collect()
    gc.freeze()


def _call(request: dict[str, Any], rules: int) -> tuple[bytes, bytes, bytes]:
    deadline = time.monotonic() + request["wall_seconds"]
    options = f"size={request['scratch_bytes']},nr_inodes=1024,mode=700"
    kernel.mount(
        "tmpfs", walls.SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options
    )
    result, result_in = os.pipe()
    printed, printed_in = os.pipe()
    pid = os.fork()
    if pid == 0:
        job.run(request, rules, result_in, printed_in)
    os.close(result_in)
    os.close(printed_in)
    limit, told, output = _watch(pid, result, printed, deadline, request["output_bytes"])
    with contextlib.suppress(ProcessLookupError):  # often nothing is left
        os.kill(-1, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    _reap()
    os.close(result)
    os.close(printed)
    kernel.umount(walls.SCRATCH)
    code = os.waitstatus_to_exitcode(status)
    if not limit and (
        code == -signal.SIGXCPU or (code < 0 and used.ru_utime + used.ru_stime >= request["cpu_seconds"])
    ):
        limit = "cpu_seconds"
    return json.dumps({"limit": limit, "code": code}).encode(), told, output


def _watch(pid: int, result: int, printed: int, deadline: float, most: int) -> tuple[str, bytes, bytes]:
    """Gather what comes until the child ends, or a limit is reached: its name, else ''."""
    child = os.pidfd_open(pid)
    poll = select.poll()
    for file in (0, child, result, printed):
        poll.register(file, select.POLLIN)
    gathered = {result: bytearray(), printed: bytearray()}
    ended = False
    try:
        while True:
            left = 0.0 if ended else deadline - time.monotonic()
            if left < 0:
                return "wall_seconds", b"", bytes(gathered[printed])
            ready = [file for file, _ in poll.poll(left * 1000)]
            if 0 in ready:
                os._exit(0)  # the server is gone, or wants no end of this
            for file in ready:
                if file in gathered:
                    chunk = os.read(file, _READ)
                    gathered[file] += chunk
                    if not chunk:
                        poll.unregister(file)
            if sum(map(len, gathered.values())) > most + 1:  # one says how it ended
                return "output_bytes", b"", bytes(gathered[printed][:most])
            if child in ready:
                ended = True
                poll.unregister(child)
            elif ended and not ready:
                return "", bytes(gathered[result]), bytes(gathered[printed])
    finally:
        os.close(child)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):  # until none is left
        while True:
            os.waitpid(-1, 0)


def _send(frame: bytes) -> None:
    unsent = len(frame).to_bytes(4, "big") + frame
    while unsent:
        unsent = unsent[os.write(1, unsent) :]


def _receive() -> bytes:
    return _exactly(int.from_bytes(_exactly(4), "big"))


def _exactly(count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        chunk = os.read(0, count - len(got))
        if not chunk:
            os._exit(0)
        got += chunk
    return bytes(got)
