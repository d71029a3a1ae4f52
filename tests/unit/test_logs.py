"""Logs: what a line may hold."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.requirement("V1", "ST15")


def lines_of(program: str) -> list[dict[str, Any]]:
    """What a program logs."""
    begin = "import logging, structlog\nfrom kfm_server import logs\nfrom kfm_server.secret import Secret\n"
    done = subprocess.run(
        [sys.executable, "-c", begin + program], capture_output=True, timeout=60, check=True
    )
    assert not done.stdout
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_traceback_names_its_frames_and_shows_no_values() -> None:
    program = """
def fail(token):
    raise ValueError("it broke")

logs.configure("info")
try:
    fail("s3cret")
except ValueError:
    structlog.get_logger().exception("failed")
    logging.getLogger("asyncio").exception("failed, too")
"""
    lines = lines_of(program)
    for line in lines:
        (error,) = line["exception"]
        assert error["exc_value"] == "it broke"
        assert [frame["name"] for frame in error["frames"]] == ["<module>", "fail"]
        assert (line["level"], "s3cret" in json.dumps(line)) == ("error", False)
    assert [line.get("logger") for line in lines] == [None, "asyncio"]


def test_libraries_log_in_the_same_form_and_never_below_warnings() -> None:
    program = """
early = logging.getLogger("early")
early.addHandler(logging.StreamHandler())
logs.configure("debug")
late = logging.getLogger("late")
late.setLevel(logging.DEBUG)
late.addHandler(logging.StreamHandler())
for logger in (early, late):
    logger.debug("prompt: %s", "what was said")
    logger.warning("%s calls", 3)
    logger.warning("%s and %s", "one")
import warnings
warnings.warn("old")
structlog.get_logger().debug("ours")
"""
    lines = lines_of(program)
    said = [(line.get("logger"), line["level"], line["event"]) for line in lines]
    assert said[:4] == [
        ("early", "warning", "3 calls"),
        ("early", "warning", "%s and %s"),
        ("late", "warning", "3 calls"),
        ("late", "warning", "%s and %s"),
    ]
    assert said[4][:2] == ("py.warnings", "warning")
    assert said[5] == (None, "debug", "ours")
    assert all("timestamp" in line for line in lines)


def test_secrets_are_hidden_by_value_and_by_name_and_content_by_name() -> None:
    program = """
logs.configure("info")
logs.hide([Secret('quo"ted-secret'), Secret("abc")])
logs.hide([Secret("later-secret")])
log = structlog.get_logger()
log.info("with later-secret inside", url='http://x/?k=quo"ted-secret', nested={"deep": ["later-secret"]})
log.info("by name", token="t", api_key="k", headers={"Authorization": "Bearer x", "other": "abc"}, kfm_token="")
log.info("content", prompt="p", output_json="{}", arguments={"a": 1}, max_tokens=5, input_tokens=3)
logging.getLogger("lib").error("failed with %s", "later-secret")
from kfm.type.v1.type_pb2 import Part
log.info("objects", part=Part(text="what was said"), raw=b"what was said", secret_holder=Secret("xyz1"))
"""
    by_value, by_name, content, foreign, objects = lines_of(program)
    assert by_value["event"] == "with [redacted] inside"
    assert by_value["url"] == "http://x/?k=[redacted]"
    assert by_value["nested"] == {"deep": ["[redacted]"]}
    assert by_name["headers"] == {"Authorization": "[redacted]", "other": "abc"}
    assert (by_name["token"], by_name["api_key"], by_name["kfm_token"]) == ("[redacted]", "[redacted]", "")
    assert (content["prompt"], content["output_json"], content["arguments"]) == ("[redacted]",) * 3
    assert (content["max_tokens"], content["input_tokens"]) == (5, 3)
    assert foreign["event"] == "failed with [redacted]"
    assert objects["part"] == "<kfm.type.v1.Part>"
    assert "what was said" not in json.dumps(objects)
    assert "xyz1" not in json.dumps(objects)


def test_what_is_no_utf_8_or_too_large_a_number_is_logged_and_breaks_nothing() -> None:
    program = r"""
logs.configure("info")
logs.hide([Secret("the-sécret")])
log = structlog.get_logger()
log.warning("ours", error="half \ud800 the-sécret", many=2**70, nested=[{1: {2}}])
logging.getLogger("lib").warning("theirs \ud800")
"""
    ours, theirs = lines_of(program)
    assert (ours["error"], ours["many"], ours["nested"]) == (
        "half \ud800 [redacted]", 2**70, [{"1": "{2}"}],
    )  # fmt: skip
    assert theirs["event"] == "theirs \ud800"


def test_a_line_says_what_the_work_at_hand_is_about() -> None:
    program = """
from kfm_server.context import work_on, work_done
logs.configure("info")
log = structlog.get_logger()
outer = work_on(trace_id="t1")
inner = work_on(trace_id="t2", step_key="s1")
logging.getLogger("lib").warning("within")
log.info("within", trace_id="its own")
work_done(inner)
log.info("after")
work_done(outer)
log.info("outside")
"""
    foreign, within, after, outside = lines_of(program)
    assert (foreign["trace_id"], foreign["step_key"]) == ("t2", "s1")
    assert (within["trace_id"], within["step_key"]) == ("its own", "s1")
    assert (after["trace_id"], "step_key" in after) == ("t1", False)
    assert "trace_id" not in outside


def test_the_level_changes_under_loggers_that_are_in_use() -> None:
    program = """
logs.configure("warning")
log = structlog.get_logger().bind(a=1)
log.info("no")
assert not log.is_enabled_for(logging.INFO)
logs.set_level("info")
log.info("yes")
logs.set_level("error")
log.warning("no")
logging.getLogger("lib").warning("no")
log.exception("yes")
"""
    assert [line["event"] for line in lines_of(program)] == ["yes", "yes"]


def test_nothing_of_opentelemetry_is_imported_unless_traces_go_somewhere() -> None:
    program = "import sys, kfm_server.app; print([m for m in sys.modules if m.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=True)
    assert done.stdout == b"[]\n"
