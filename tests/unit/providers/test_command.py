"""`kfm model-server`: how it starts, and why it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.model_server import ModelServer

KFM = Path(sys.executable).with_name("kfm")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--script", "/missing.json"], "/missing.json cannot be read"),
        (["--address", "nowhere"], "is not host:port"),
        (["--address", "0.0.0.0:0"], "give it a --token"),
    ],
)
def test_a_start_that_cannot_be_is_refused_with_the_reason(given: list[str], said: str) -> None:
    done = subprocess.run([KFM, "model-server", *given], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert said in done.stderr and not done.stdout


def test_a_script_that_is_no_text_is_refused_with_its_file_and_place(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"rules": [{"reply": {"text": "\\udc00"}}]}')
    command = [KFM, "model-server", "--address", "127.0.0.1:0", "--script", tmp_path / "mine.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "mine.json: rules[0] holds \\udc00" in done.stderr and "Traceback" not in done.stderr


def test_it_says_where_it_listens_and_ends_on_sigterm() -> None:
    server = ModelServer()
    server.start()
    assert server.count() == 0
    server.stop()
    assert server.process is not None and server.process.returncode == 0
