"""For tests of programs that use Xenocomm: a real server in this process, with a scripted model and a clock that can be moved
on; and recorded turns that play again without any server.

    pytest_plugins = ["xenocomm.testing.plugin"]        # in conftest.py: the fixtures kfm_server and kfm

    def test_nobody_answers(kfm_server, kfm):
        turn = kfm.turns.start(plan_with_a_question, timeout=3600)
        kfm_server.clock.advance(3600)
        with pytest.raises(TurnTimedOut):
            turn.result()

The server needs the package kfm-server; the recorded turns need nothing.
"""

from xenocomm.testing.player import RecordedTurn, load, save
from xenocomm.testing.server import ServerClock, ServerInProcess, server

__all__ = ["RecordedTurn", "ServerClock", "ServerInProcess", "load", "save", "server"]
