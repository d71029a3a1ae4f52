"""The blocking facade: the asynchronous client, waited for."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from xenocomm import Outcome, SyncClient, errors
from xenocomm.sync import BackgroundLoop, acquire, release

from tests.e2e.toy_door import Running, toy_door
from tests.support.live import LiveServer

pytestmark = pytest.mark.requirement("E5")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def toy() -> Generator[Running]:
    """A toy server on the background loop itself."""
    loop = acquire()
    door = toy_door()
    try:
        yield loop.run(door.__aenter__())
        loop.run(door.__aexit__(None, None, None))
    finally:
        release(loop)


@pytest.fixture
def kfm(toy: Running) -> Generator[SyncClient]:
    with SyncClient(toy.grpc, timeout=5) as client:
        yield client


def test_a_turn_is_started_followed_and_read_without_await(kfm: SyncClient) -> None:
    turn = kfm.turns.start("hello", watch=True)
    assert [e.sequence for e in turn.events()] == [1, 2, 3]
    assert "".join(turn.text()) == "hello"
    assert turn.result().outcome == Outcome.SUCCEEDED
    assert kfm.turns.run("again").output[0].text == "again"
    assert repr(turn) == f"SyncTurnHandle({turn.id!r})"


def test_lists_and_pages_are_plain_iterables(kfm: SyncClient) -> None:
    for index in range(5):
        kfm.turns.start(f"turn {index}")
    assert len(list(kfm.turns.list())) == 5
    page = kfm.turns.list().page("", 2)
    assert (len(page.items), bool(page.next_page_token)) == (2, True)
    assert [len(p.items) for p in kfm.turns.list(page_size=2).pages()] == [2, 2, 1]


def test_failures_are_the_same_and_raised_in_the_callers_thread(kfm: SyncClient) -> None:
    with pytest.raises(errors.TurnNotFound):
        kfm.turns.get("turn_nope")
    with pytest.raises(errors.InvalidArgument):
        SyncClient("nonsense")
    with pytest.raises(AttributeError):
        _ = kfm.turns.nonsense  # pyright: ignore


def test_a_call_with_its_raw_side(kfm: SyncClient) -> None:
    turn = kfm.turns.start("hello")
    raw = kfm.with_raw(kfm.aio.turns.get(turn.id))
    assert raw.value.turn_id == turn.id
    assert raw.status == "OK"


def test_threads_share_a_client(kfm: SyncClient) -> None:
    with ThreadPoolExecutor(8) as pool:
        texts = [f"message {i}" for i in range(40)]
        answers = list(pool.map(lambda text: kfm.turns.run(text).output[0].text, texts))
    assert answers == texts


def test_leaving_an_iterator_early_ends_its_stream(toy: Running, kfm: SyncClient) -> None:
    turn = kfm.turns.start("wait")
    with turn.events() as events:
        assert next(events).sequence == 1
    assert kfm.turns.get(turn.id).turn_id == turn.id


def test_a_blocking_call_inside_a_callback_says_so(kfm: SyncClient) -> None:
    turn = kfm.turns.start("hello")
    with pytest.raises(RuntimeError, match="callback"):
        turn.until_done(lambda update: kfm.turns.get(turn.id))
    assert turn.until_done().turn_id == turn.id


def test_the_background_thread_ends_with_the_last_client(toy: Running) -> None:
    def running() -> int:
        return sum(thread.name == "xenocomm" for thread in threading.enumerate())

    first, second = SyncClient(toy.grpc), SyncClient(toy.grpc)
    assert running() == 1
    first.close()
    first.close()
    assert second.turns.run("still here").output[0].text == "still here"
    with pytest.raises(RuntimeError, match="closed"):
        first.turns.get("turn_1")
    second.close()


def test_a_loop_without_users_is_gone() -> None:
    loop = BackgroundLoop()
    assert loop.run(asyncio.sleep(0, "x")) == "x"
    loop.stop()
    assert not any(t.name == "xenocomm" and t.is_alive() for t in threading.enumerate())


def test_closing_while_another_thread_waits_ends_its_wait(toy: Running) -> None:
    client = SyncClient(toy.grpc, timeout=5)
    turn = client.turns.start("wait")
    toy.turns.waited.clear()
    failures: list[BaseException] = []

    def wait() -> None:
        try:
            turn.result()
        except BaseException as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    loop = acquire()
    loop.run(asyncio.wait_for(toy.turns.waited.wait(), 10))
    client.close()
    waiting.join(10)
    release(loop)
    assert not waiting.is_alive()
    assert isinstance(failures[0], RuntimeError)


def test_ctrl_c_ends_a_waiting_call_and_the_turn_goes_on(live_server: LiveServer) -> None:
    script = (
        "import os, sys\nfrom xenocomm import SyncClient\n"
        "plan = {'plan': {'steps': [{'key': 'ask', 'kind': 'human', 'instructions': 'Well?'}]}}\n"
        "with SyncClient() as kfm:\n"
        "    turn = kfm.turns.start(plan)\n"
        "    try:\n"
        "        for event in turn.events():\n"
        "            print(turn.id if event.sequence == 1 else '', flush=True)\n"
        "    except KeyboardInterrupt:\n"
        "        print('interrupted', kfm.turns.get(turn.id).state.name, flush=True)\n"
    )
    environment = {**os.environ, "KFM_ENDPOINT": live_server.grpc}
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    turn_id = process.stdout.readline().strip()
    assert turn_id.startswith("turn_")
    for _ in range(2):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert "interrupted" in out, err
    assert process.returncode == 0, err
    assert "Traceback" not in err
    with SyncClient(live_server.grpc) as kfm:
        assert kfm.turns.attach(turn_id).cancel().turn_id == turn_id


def test_the_stub_is_what_the_asynchronous_classes_say() -> None:
    script = "import sync_stub; print(sync_stub.TARGET.read_text() == sync_stub.formatted(sync_stub.stub()))"
    call = [sys.executable, "-c", script]
    found = subprocess.run(call, cwd=ROOT / "sdk" / "python", capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True", "run .venv/bin/python sdk/python/sync_stub.py"


PROGRAM = """
from dataclasses import dataclass
from typing import assert_type
from xenocomm import Envelope, Page, SyncClient, Turn
from xenocomm.sync import SyncTurnHandle

@dataclass
class Answer:
    number: int

with SyncClient("127.0.0.1:1") as kfm:
    turn = kfm.turns.start("x")
    assert_type(turn, SyncTurnHandle)
    assert_type(kfm.turns.run("x"), Turn)
    assert_type(kfm.turns.run("x", output=Answer), Answer)
    assert_type(turn.output(Answer), Answer)
    assert_type(kfm.turns.list().page(), Page[Turn])
    for event in turn.events():
        assert_type(event, Envelope)
    for found in kfm.turns.list():
        assert_type(found, Turn)
"""


def test_a_type_checker_knows_the_blocking_types(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    settings = {"typeCheckingMode": "strict", "include": ["program.py"], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    pyright = Path(sys.executable).parent / "pyright"
    call = [str(pyright), "-p", str(tmp_path), "--pythonpath", sys.executable]
    found = subprocess.run(call, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert found.returncode == 0, found.stdout[-2000:]
