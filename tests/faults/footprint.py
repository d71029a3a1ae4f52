"""What a server holds: to see that it lets go again of all that its work took (I9).

Tasks, files, watchers, streams and sessions are counted, and a leak of them shows at once. Resident memory is noisy: the
allocator keeps pages that nothing uses any more, more or fewer by the order in which they came free. So work like that
done before may make it grow by a tenth and SLACK_MIB. This finds what keeps whole buffers or histories, not a few bytes each.
"""

import asyncio
import urllib.request
from dataclasses import dataclass

import psutil

from tests.support.live import LiveServer

_GAUGES = ("kfm_tasks", "kfm_watchers", "kfm_sessions_in_memory", "kfm_calls_in_flight", "kfm_streams")
SLACK_MIB = 32.0
"""Memory beside a tenth that the allocator may keep."""
SLACK_FILES = 8
"""Connections to Postgres beside a tenth that pools may keep: more work at one time than before opens more of them."""


@dataclass(frozen=True)
class Footprint:
    """Open files and sockets, memory in MiB, and the server's own gauges by name."""

    files: int
    memory_mib: float
    gauges: dict[str, float]

    def above(self, before: "Footprint", sessions: int = 0) -> dict[str, tuple[float, float]]:
        """What is more than a tenth, and the slack of memory and files, above before, beside `sessions` that rightly stay in memory."""
        now, then = self._numbers(), before._numbers()
        then["kfm_sessions_in_memory"] += sessions
        most = {name: held * 1.1 for name, held in then.items()}
        most["memory_mib"] += SLACK_MIB
        most["files"] += SLACK_FILES
        return {name: (then[name], held) for name, held in now.items() if held > most[name]}

    def _numbers(self) -> dict[str, float]:
        return {"files": self.files, "memory_mib": self.memory_mib, **self.gauges}


def footprint(server: LiveServer) -> Footprint:
    """As it is now."""
    assert server.process is not None
    with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.partition(" ") for line in lines)
    gauges = {name: float(value) for name, _, value in found if name in _GAUGES}
    process = psutil.Process(server.process.pid)
    return Footprint(process.num_fds(), process.memory_info().rss / 2**20, gauges)


async def settled(server: LiveServer, before: Footprint, sessions: int = 0) -> Footprint:
    """Look until the server holds no more than before (I9); AssertionError with what it does hold after 10 s."""
    above: dict[str, tuple[float, float]] = {}
    try:
        async with asyncio.timeout(30):
            while True:
                now = await asyncio.to_thread(footprint, server)
                above = now.above(before, sessions)
                if not above:
                    return now
    except TimeoutError:
        raise AssertionError(f"I9: still held (before, now): {above}") from None
