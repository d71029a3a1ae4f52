"""The cases of a pack's tests/: calls of its tools in the sandbox, messages in a server of one's own with a model that follows them."""

import asyncio
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfm.pack.v1 import manifest_pb2 as pb

from kfm_server.canonical import canonical_json
from kfm_server.personalities.files import write
from kfm_server.personalities.pack import Pack, plain
from kfm_server.personalities.tools import run_tool
from kfm_server.ports.tools import ToolError
from kfm_server.sandbox.processes import ProcessSandbox

if TYPE_CHECKING:
    from xenocomm import Client


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What a case came to; `why` is empty if it holds."""

    file: str
    case: str
    why: str

    @property
    def passed(self) -> bool:
        """All that it expects came of it."""
        return not self.why


def run_cases(pack: Pack) -> list[CaseResult]:
    """All cases of the pack, in their order."""
    cases = [(file, case) for file, tests in pack.tests.items() for case in tests.cases]
    told: dict[int, str] = {}
    with tempfile.TemporaryDirectory(prefix="kfm-pack-") as where:
        directory = Path(where) / pack.name
        write(pack.files, directory)
        directory.parent.chmod(0o755)
        calls = {i: case for i, (_, case) in enumerate(cases) if case.HasField("call")}
        told |= asyncio.run(_tool_cases(pack, directory, calls))
        messages = {i: case for i, (_, case) in enumerate(cases) if case.HasField("message")}
        if messages:
            told |= _message_cases(pack, directory, messages)
    return [CaseResult(file, case.name, told[index]) for index, (file, case) in enumerate(cases)]


async def _tool_cases(pack: Pack, directory: Path, cases: Mapping[int, pb.PackCase]) -> dict[int, str]:
    tools = {tool.name: tool for tool in pack.manifest.tools}
    told: dict[int, str] = {}
    async with ProcessSandbox.open(size=1) as sandbox:
        for index, case in cases.items():
            tool = tools[case.call.tool]
            try:
                value, _ = await run_tool(sandbox, directory, tool, plain(case.call.arguments))
            except ToolError as error:
                told[index] = _failed(case.expect, str(error))
            else:
                told[index] = _judged(case.expect, value, canonical_json(value), ())
    return told


def _message_cases(pack: Pack, directory: Path, cases: Mapping[int, pb.PackCase]) -> dict[int, str]:
    """Each in a session of its own, on one server. Needs what `kfm dev` needs: the embedded database."""
    from xenocomm.testing import server

    script = {"rules": [rule for case in cases.values() for rule in _rules(case)]}
    script_file = directory.parent / "script.json"
    script_file.write_text(json.dumps(script))
    models = "".join(
        f'[models.{name}]\nprovider = "scripted"\nmodel = "{name}"\nscript = {json.dumps(str(script_file))}\n'
        for name in pack.manifest.models
    )
    # The directory's parent holds the pack and nothing else that could be one.
    config = f"packs = {json.dumps(str(directory.parent))}\n{models}"
    with server(script=script, config=config) as running:
        return asyncio.run(_turns(pack, running.client(timeout=30), cases))


async def _turns(pack: Pack, client: "Client", cases: Mapping[int, pb.PackCase]) -> dict[int, str]:
    from xenocomm import XenocommError
    from xenocomm._gen.types import Outcome

    told: dict[int, str] = {}
    async with client:
        for index, case in cases.items():
            try:
                handle = await client.turns.start(case.message, personality=pack.name)
                turn = await handle.result(timeout=60, check=False)
            except XenocommError as error:
                told[index] = _failed(case.expect, error.message)
                continue
            if turn.outcome != Outcome.SUCCEEDED:
                told[index] = _failed(
                    case.expect, turn.error.message if turn.error else "it waits for a person"
                )
                continue
            steps = [step.definition for step in turn.steps if step.definition is not None]
            called = tuple(step.tool for step in steps if step.tool)
            text = "\n".join(part.text or part.data_json or "" for part in turn.output)
            told[index] = _judged(case.expect, text, text, called)
    return told


def _rules(case: pb.PackCase) -> Iterator[dict[str, Any]]:
    for step, said in enumerate(case.model_says):
        words = said.split(maxsplit=2)
        reply: dict[str, Any] = {"text": said}
        if len(words) == 3 and words[0] == "tool" and words[2].startswith("{"):
            reply = {"tools": [{"name": words[1], "raw": words[2]}]}
        yield {"user": f"\\A{re.escape(case.message)}\\Z", "step": step, "reply": reply}


def _failed(expect: pb.PackExpectation, error: str) -> str:
    if expect.error:
        return "" if expect.error in error else f"failed with {error!r}, which does not hold {expect.error!r}"
    return f"failed: {error}"


def _judged(expect: pb.PackExpectation, value: Any, text: str, called: tuple[str, ...]) -> str:
    if expect.error:
        return f"did not fail, and was to fail with {expect.error!r}"
    if expect.HasField("output") and (wanted := plain(expect.output)) != value:
        return f"gave {text[:500]} and not {canonical_json(wanted)[:500]}"
    for part in expect.contains:
        if part not in text:
            return f"gave {text[:500]}, which does not hold {part!r}"
    if expect.calls and tuple(expect.calls) != called:
        return f"called {', '.join(called) or 'nothing'} and not {', '.join(expect.calls)}"
    return ""
