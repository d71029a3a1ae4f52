"""What the tests fork is as what they would start: arguments, environment, directory, files, signals, exit code."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import forking
from tests.support.forked import Forked


def test_a_stand_in_has_the_commands_exit_code_and_output_and_its_environment(tmp_path: Path) -> None:
    done = subprocess.run(
        [*forking.kfm(), "turn", "list", "-o", "json"],
        env={"KFM_ENDPOINT": "127.0.0.1:1", "KFM_RETRIES": "0"},
        cwd=tmp_path,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (9, b"")
    assert b"127.0.0.1:1" in done.stderr
    wrong = subprocess.run([*forking.kfm(), "no-such"], capture_output=True, timeout=30, check=False)
    assert wrong.returncode == 2 and b"no-such" in wrong.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_the_process_and_ends_it_as_it_would_the_real_one(
    tmp_path: Path, number: signal.Signals
) -> None:
    with (tmp_path / "log").open("wb") as log:
        process = forking.started(["model-server", "--address", "127.0.0.1:0"], {}, forking.ROOT, log)
    while b"http://" not in (tmp_path / "log").read_bytes():
        assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(number)
    assert process.wait(20) == (-9 if number == signal.SIGKILL else 0)
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_stand_in_that_is_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [*forking.kfm(), "model-server", "--address", "127.0.0.1:0"]
    stand_in = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert stand_in.stdout is not None
    with stand_in.stdout as told:
        assert told.readline().startswith(b"http://")
        stand_in.kill()
        stand_in.wait(10)
        assert told.read() == b"", "its output ends when the real process is gone, too"


def test_another_directory_or_another_environment_of_imports_is_started_for_real(tmp_path: Path) -> None:
    for directory, environment in ((tmp_path, {}), (forking.ROOT, {"KFM_FAILPOINTS": "process.ready"})):
        with (tmp_path / "log").open("wb") as log:
            process = forking.started(["--version"], environment, directory, log)
        assert not isinstance(process, Forked)
        assert process.wait(30) == 0
