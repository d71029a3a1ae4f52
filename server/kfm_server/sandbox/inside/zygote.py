"""The first process of a sandbox: takes calls from the server, one at a time, and forks a child for each.

It never runs a line that it was sent: only its children do, behind walls of their own. Nor does it ever hold one, or what
came of it, where a child could find it: children have copies of its memory. Frames go both ways over its standard input and
output. A call is two: JSON with its limits, and JSON with the rest, which the child reads itself; its end is three: JSON that
says how, what the child told, and what it printed.
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
from kfm_server.sandbox.inside.frames import Gathered, receive, send

WARM = (
    base64, collections, contextlib, csv, dataclasses, datetime, decimal, enum, fractions, functools, hashlib, inspect,
    io, itertools, math, pathlib, random, re, statistics, string, textwrap, typing, uuid,
)  # fmt: skip
"""What code imports often: read once here, and found ready by every call."""
_MEMORY = 512 * 1024 * 1024


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
        send(json.dumps({"refused": error.strerror or str(error)}).encode())
        os._exit(1)
    send(b'{"ready":true}')
    while True:
        _call(json.loads(receive()), rules)


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


def _call(limits: dict[str, Any], rules: int) -> None:
    options = f"size={limits['scratch_bytes']},nr_inodes=1024,mode=700"
    kernel.mount(
        "tmpfs", walls.SCRATCH, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options
    )
    result, result_in = os.pipe()
    printed, printed_in = os.pipe()
    most = limits["output_bytes"]
    told, output = Gathered(most + 3), Gathered(most + 3)
    pid = os.fork()
    if pid == 0:
        job.run(limits, rules, result_in, printed_in)
    os.close(result_in)
    os.close(printed_in)
    limit = _watch(pid, {result: told, printed: output}, limits["wall_seconds"], most)
    with contextlib.suppress(ProcessLookupError):  # often nothing is left
        os.kill(-1, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    _reap()
    os.close(result)
    os.close(printed)
    kernel.umount(walls.SCRATCH)
    code = os.waitstatus_to_exitcode(status)
    if not told.size:
        os._exit(1)  # where the next call begins, nobody knows
    if not limit and (
        code == -signal.SIGXCPU or (code < 0 and used.ru_utime + used.ru_stime >= limits["cpu_seconds"])
    ):
        limit = "cpu_seconds"
    send(json.dumps({"limit": limit, "code": code}).encode())
    told.send(len(job.READY), len(job.READY) if limit else None)
    output.send(0, most)
    told.close()
    output.close()


def _watch(pid: int, pipes: dict[int, Gathered], seconds: float, most: int) -> str:
    """Gather what comes until the child ends, or a limit is reached: its name, else ''. Its time begins once it has its call."""
    child = os.pidfd_open(pid)
    poll = select.poll()
    for file in (child, *pipes):
        poll.register(file, select.POLLIN)
    told = next(iter(pipes.values()))
    ended, deadline = False, float("inf")
    try:
        while True:
            left = 0.0 if ended else deadline - time.monotonic()
            if left < 0:
                return "wall_seconds"
            ready = [file for file, _ in poll.poll(left * 1000 if left < float("inf") else None)]
            if 0 in ready:
                os._exit(0)  # the server is gone, or wants no end of this
            for file in ready:
                if file in pipes and not pipes[file].read(file):
                    poll.unregister(file)
            if told.size and deadline == float("inf"):  # until then what comes from the server is the child's
                deadline = time.monotonic() + seconds
                poll.register(0, select.POLLIN)
            if sum(gathered.size for gathered in pipes.values()) > most + 1 + len(
                job.READY
            ):  # one says how it ended
                return "output_bytes"
            if child in ready:
                ended = True
                poll.unregister(child)
            elif ended and not ready:
                return ""
    finally:
        os.close(child)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):  # until none is left
        while True:
            os.waitpid(-1, 0)
