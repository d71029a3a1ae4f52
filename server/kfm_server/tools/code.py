"""Runs a piece of Python that a model wrote, in the sandbox."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from kfm.type.v1 import type_pb2 as types

from kfm_server.ports.sandbox import Grant, LimitReached, MiB, Sandbox, SandboxError, Snippet, Wanted
from kfm_server.ports.tools import ToolCall, ToolError, ToolSpec

MAX_SOURCE: Final = 20_000
"""Longest source, in characters."""
LIMITS: Final = Grant(cpu_seconds=6, wall_seconds=5.0, memory_bytes=128 * MiB, output_bytes=64 * 1024)
"""What a snippet has where nothing else is set: no files, no network; these limits are named when they are reached."""
Choose = Callable[[], Awaitable[Sandbox]]
_INT_BITS = 63
_SHOWN = 500
_SUBSET = (
    "a subset of Python: no generators, no third-party packages; of the library json, re, math, datetime, decimal, "
    "itertools, collections, hashlib, base64, random and a few more"
)
_TIERS: Final[dict[Wanted, str]] = {
    "interpreter": f"It is {_SUBSET}.",
    "process": "It is Python with its standard library.",
    "auto": f"It is Python with its standard library; where the host cannot confine that, {_SUBSET}.",
}


class Code:
    """The tool `code`. PURE: a snippet has nothing that it could have an effect on.

    It runs in the sandbox that it was given, and in no other.
    """

    def __init__(self, wanted: Wanted = "auto", grant: Grant = LIMITS) -> None:
        """`bind` gives it its sandbox; what is told to models does not depend on the host, which others share turns with."""
        self.wanted: Wanted = wanted
        self._grant = grant
        self._choose: Choose | None = None
        self.spec = ToolSpec(
            name="code",
            description=(
                "Runs a piece of Python and answers with the value of the expression it ends with, and with what it "
                f"printed. {_TIERS[wanted]} No files, no network; nothing is kept from one call to the next. At most "
                f"{grant.wall_seconds:g} s, {grant.memory_bytes // MiB} MiB of memory, "
                f"{grant.output_bytes // 1024} KiB of output."
            ),
            input_schema={
                "type": "object",
                "properties": {
                    "source": {
                        "type": "string",
                        "minLength": 1,
                        "maxLength": MAX_SOURCE,
                        "description": "For example: import math\nmath.sqrt(x)",
                    },
                    "inputs": {
                        "type": "object",
                        "description": "Values that the source finds as variables of these names.",
                        "maxProperties": 50,
                        "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9_]{0,30}$"},
                    },
                },
                "required": ["source"],
                "additionalProperties": False,
            },
            effect=types.EFFECT_CONTRACT_PURE,
        )

    def bind(self, choose: Choose) -> None:
        """What answers with its sandbox, at each call. Raises SandboxRefused where there is none."""
        self._choose = choose

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Run `source`; answers `value`, integers of more than 63 bits as their digits, and `printed`.

        Raises ToolError: what the code failed with, or the limit it reached and what it had printed by then.
        """
        if self._choose is None:
            raise ToolError("Code needs a sandbox, and this process has none.")
        try:
            sandbox = await self._choose()
            outcome = await sandbox.run(
                Snippet(arguments["source"]), arguments.get("inputs", {}), self._grant
            )
            return {"value": _kept(outcome.value), "printed": outcome.printed}
        except LimitReached as reached:
            so_far = f" It had printed: {reached.printed[-_SHOWN:]}" if reached.printed else ""
            raise ToolError(f"{reached}{so_far}") from None
        except SandboxError as error:
            raise ToolError(str(error)) from None
        except RecursionError:
            raise ToolError("The value is nested too deeply.") from None


def _kept(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _kept(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_kept(item) for item in value]
    return str(value) if isinstance(value, int) and value.bit_length() > _INT_BITS else value
