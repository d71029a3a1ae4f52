"""Runs calls in a sandbox for a test, as whatever user it was started: a line of JSON for each call, one for each end."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from kfm_server.ports.sandbox import CodeFailed, Grant, LimitReached, SandboxRefused, Snippet
from kfm_server.sandbox.inside import kernel, seccomp
from kfm_server.sandbox.processes import ProcessSandbox


async def _told(sandbox: ProcessSandbox, asked: dict[str, Any]) -> dict[str, Any]:
    asked["grant"]["read_only"] = tuple(map(Path, asked["grant"].get("read_only", ())))
    try:
        outcome = await sandbox.run(Snippet(asked["source"]), asked["arguments"], Grant(**asked["grant"]))
    except CodeFailed as error:
        return {"failed": error.kind, "text": error.text}
    except LimitReached as error:
        return {"limit": error.limit, "printed": error.printed[:10_000]}
    except SandboxRefused as error:
        return {"refused": str(error)}
    return {"value": outcome.value, "printed": outcome.printed}


async def _main() -> None:
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    async with ProcessSandbox.open(size=1) as sandbox:
        while line := await reader.readline():
            print(json.dumps(await _told(sandbox, json.loads(line))), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:  # as on a host where these system calls are forbidden
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        seccomp.install(seccomp.deny(*sys.argv[1:]))
    asyncio.run(_main())
