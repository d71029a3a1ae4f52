"""Logs: what a line may hold."""

import json
import subprocess
import sys

_PROGRAM = """
import structlog
from kfm_server import logs

def fail(token):
    raise ValueError("it broke")

logs.configure("info")
try:
    fail("s3cret")
except ValueError:
    structlog.get_logger().exception("failed")
"""


def test_a_traceback_names_its_frames_and_shows_no_values() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, timeout=30, check=True)
    (line,) = done.stderr.splitlines()
    (error,) = json.loads(line)["exception"]
    assert error["exc_value"] == "it broke"
    assert [frame["name"] for frame in error["frames"]] == ["<module>", "fail"]
    assert b"s3cret" not in line
