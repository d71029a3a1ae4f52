"""Models and personalities as they are configured: plain values, the same for planners, steps and doors."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Literal

from kfm_server.canonical import canonical_json, parse_json
from kfm_server.secret import NO_SECRET, Secret

PlannerName = Literal["rules", "plan", "react", "hybrid"]
EVERY_TOOL = "*"
"""Stands for all tools of the server that are not reserved; `ask_person` is none of them."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A configured model: `[models.NAME]` of config.toml.

    provider: `openai` (any OpenAI-compatible endpoint, by `base_url`), `litellm` or `scripted`; model: the
    provider's name of it; api_key: `reveal()` it where it is sent; context_tokens and max_output_tokens: what it
    takes and writes at most; prices in 10^-9 US dollars a token, None is not known; max_complexity: the router gives it
    messages up to this complexity, 0 to 100; timeout_seconds: what one call may take; fallbacks: names of the models that are
    asked, in this order, when this one's provider fails; cache_seconds: how long an equal call is answered from memory
    with the same reply, 0 is never.
    """

    name: str
    provider: str
    model: str
    base_url: str = ""
    api_key: Secret = NO_SECRET
    context_tokens: int = 128_000
    max_output_tokens: int = 4_096
    input_nanos: int | None = None
    output_nanos: int | None = None
    max_complexity: int = 100
    temperature: float | None = None
    script: str = ""
    timeout_seconds: float = 120.0
    fallbacks: tuple[str, ...] = ()
    cache_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class OwnTool:
    """A tool that a personality brings: one of its pack. `schema_json`: JSON Schema of its arguments, an object.

    It runs in the sandbox, where it can do nothing to anyone: its contract is PURE.
    """

    name: str
    description: str
    schema_json: str


@dataclass(frozen=True, slots=True)
class Personality:
    """How an agent plans and what it is told: `[personalities.NAME]` of config.toml, or a pack.

    models: names of configured models, the weakest first, empty is all of them; tools: names of the server's that it
    may call, None is all, and so is EVERY_TOOL beside names that it does not stand for; version, pack, own_tools: of its pack, with the digest of the pack's files. A turn keeps it
    as it began: what the pack becomes later is another value.
    """

    name: str = "assistant"
    description: str = ""
    planner: PlannerName = "hybrid"
    models: tuple[str, ...] = ()
    instructions: str = ""
    tools: tuple[str, ...] | None = None
    max_repairs: int = 2
    version: str = ""
    pack: str = ""
    own_tools: tuple[OwnTool, ...] = ()

    @lru_cache(maxsize=64)  # noqa: B019 - a value; there are as many as are configured
    def encode(self) -> str:
        """As a turn keeps it: canonical JSON."""
        return canonical_json({k: v for k, v in asdict(self).items() if v or k not in _OF_PACKS})

    @staticmethod
    @lru_cache(maxsize=64)
    def decode(text: str) -> "Personality":
        """The reverse of `encode`; fields of a newer release are left out, missing ones take their defaults."""
        raw = parse_json(text)
        known = {k: raw[k] for k in Personality.__slots__ if k in raw}
        known["models"] = tuple(known.get("models", ()))
        if known.get("tools") is not None:
            known["tools"] = tuple(known["tools"])
        if "own_tools" in known:
            known["own_tools"] = tuple(
                OwnTool(**{k: tool[k] for k in OwnTool.__slots__ if k in tool}) for tool in known["own_tools"]
            )
        return Personality(**known)

    @property
    def digest(self) -> str:
        """SHA-256 in hex of all that it is made of."""
        return _sha256(self.encode())


_OF_PACKS = ("version", "pack", "own_tools")
"""Left out where there is no pack, as they were before there were any: a digest stays what it was."""


@lru_cache(maxsize=64)
def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


DEFAULT_PERSONALITY = Personality(
    description="Reads arithmetic and todo lists by rules; plans by model if one is configured."
)

Personalities = Mapping[str, Personality]
Models = Mapping[str, ModelSpec]
