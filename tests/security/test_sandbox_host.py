"""A host that cannot confine code says so, and runs none."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from kfm_server.ports.sandbox import require
from kfm_server.sandbox.probing import probe

from tests.security.conftest import Prison, started

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K3", "ST14"), pytest.mark.timeout(300)]

PROBE = """
import asyncio
from kfm_server.sandbox.probing import probe
print([(found.tier, found.able, found.reason) for found in asyncio.run(probe())][1])
"""


async def refused_by(pack: Path, *denied: str) -> str:
    prison: Prison = await started(sys.executable, pack, *denied)
    try:
        return (await prison.attempt("open('/etc/passwd').read()")).get("refused", "")
    finally:
        prison.process.kill()
        await prison.process.wait()


async def test_this_host_is_looked_at_by_trying_to_get_out(prison: Prison) -> None:
    assert await prison.value("1") == 1  # so it can
    found = await probe()
    assert [(c.tier, c.able) for c in found] == [("interpreter", True), ("process", True)]
    require("process", found)


@pytest.mark.parametrize("denied", ["unshare", "mount", "pivot_root", "mount_setattr", "umount2"])
async def test_where_a_wall_cannot_be_built_nothing_runs(pack: Path, denied: str) -> None:
    reason = await refused_by(pack, denied)
    assert denied.removesuffix("2") in reason and "not permitted" in reason


async def test_a_host_without_user_namespaces_is_found_unable_and_says_why() -> None:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("util-linux is not installed")
    script = f'echo 0 > /proc/sys/user/max_user_namespaces || exit 3; exec {sys.executable} -c "$1"'
    done = await asyncio.to_thread(
        subprocess.run, [unshare, "-Ur", "sh", "-c", script, "sh", PROBE], capture_output=True, text=True
    )
    if done.returncode in (1, 3):
        pytest.skip(f"no namespace to forbid namespaces in: {done.stderr[:200]}")
    assert done.stdout.startswith("('process', False, ") and "user.max_user_namespaces" in done.stdout
