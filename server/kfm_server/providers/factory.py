"""Providers by the name of a configured model; endpoints and keys are shared by the models that have the same."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from kfm_server import metrics
from kfm_server.breaker import Breaker
from kfm_server.models import ModelSpec
from kfm_server.ports.cache import Cache
from kfm_server.ports.models import ModelProvider, ProviderError
from kfm_server.providers.guard import GuardedProvider
from kfm_server.providers.litellm_adapter import LiteLLMProvider, load
from kfm_server.providers.reply_cache import ReplyCache
from kfm_server.providers.scripted import ScriptedProvider
from kfm_server.providers.scripts import DEMO, ScriptInvalid, load_script

PROVIDERS: Final = ("litellm", "openai", "scripted")
"""The providers that a model may name."""
_LEVELS: Final = {"closed": 0, "half_open": 1, "open": 2}


class ModelsInvalid(ValueError):
    """The configured models cannot be used; the message says which and why, without its key."""


class UnknownModel(LookupError):
    """No model of that name is configured; the message lists those that are."""


class Providers:
    """The configured models, each with its guarded provider. Nothing connects before the first call."""

    def __init__(
        self,
        models: Mapping[str, ModelSpec],
        now: Callable[[], float] = time.monotonic,
        cache: Cache | None = None,
    ) -> None:
        """`now`: seconds, by which breakers close; `cache`: where replies are kept. Raises ModelsInvalid."""
        self._now = now
        self._cache = ReplyCache(cache)
        self._breakers: dict[tuple[str, ...], Breaker] = {}
        self._shared: dict[tuple[str, ...], ModelProvider] = {}
        self._retired: list[ModelProvider] = []
        self._models: dict[str, tuple[GuardedProvider, ModelSpec]] = {}
        self.reconfigure(models)

    def listed(self) -> list[tuple[ModelSpec, Breaker]]:
        """All, in the order of the configuration, with the breakers of their endpoints."""
        return [(spec, guarded.breaker) for guarded, spec in self._models.values()]

    def healthy(self) -> bool:
        """Every breaker of a model is closed."""
        return all(breaker.state == "closed" for breaker in self._breakers.values())

    def get(self, name: str) -> tuple[GuardedProvider, ModelSpec]:
        """A model's provider and what is known of it. Raises UnknownModel."""
        found = self._models.get(name)
        if found is None:
            there = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel(f"There is no model {name[:80]!r}; configured: {there}.")
        return found

    def reconfigure(self, models: Mapping[str, ModelSpec]) -> None:
        """Take other models; all or nothing. What is no longer named stays open for the calls under way, until `close`.

        Raises ModelsInvalid, and then nothing has changed.
        """
        shared: dict[tuple[str, ...], ModelProvider] = {}
        found: dict[str, tuple[GuardedProvider, ModelSpec]] = {}
        breakers: dict[tuple[str, ...], Breaker] = {}
        for name, spec in models.items():
            _check_fallbacks(spec, models)
            identity = (spec.provider, spec.base_url, spec.api_key.reveal(), spec.script)
            provider = shared.get(identity) or self._shared.get(identity) or _made(spec)
            shared[identity] = provider
            endpoint = (*identity, spec.model)
            breaker = breakers.get(endpoint) or self._breakers.get(endpoint) or Breaker(self._now)
            breakers[endpoint] = breaker
            found[name] = (GuardedProvider(provider, spec, breaker, self._cache), spec)
        self._retired += (p for p in self._shared.values() if p not in shared.values())
        for gone in self._models.keys() - found.keys():
            with suppress(KeyError):
                metrics.MODEL_BREAKER.remove(gone)
        for name, (guarded, _) in found.items():
            metrics.MODEL_BREAKER.labels(name).set_function(partial(_level, guarded.breaker))
        self._shared, self._models, self._breakers = shared, found, breakers

    async def warm(self) -> None:
        """Load what the first call would: LiteLLM, if a model needs it; that takes seconds. Never fails."""
        if any(isinstance(provider, LiteLLMProvider) for provider in self._shared.values()):
            with suppress(ProviderError):  # the call itself will say so
                await load()

    async def close(self) -> None:
        """Close every connection; calls under way fail as cut."""
        for provider in (*self._shared.values(), *self._retired):
            await provider.close()
        self._retired.clear()


def _level(breaker: Breaker) -> float:
    return _LEVELS[breaker.state]


def _check_fallbacks(spec: ModelSpec, models: Mapping[str, ModelSpec]) -> None:
    for name in spec.fallbacks:
        if name == spec.name or name not in models:
            why = "which is itself" if name == spec.name else "and that is not configured"
            raise ModelsInvalid(f"models.{spec.name}: fallbacks names {name!r}, {why}")


def _made(spec: ModelSpec) -> ModelProvider:
    try:
        match spec.provider:
            case "openai":
                # Imports aiohttp: not for who does not use it.
                from kfm_server.providers.openai_http import OpenAIProvider

                return OpenAIProvider(spec.base_url, spec.api_key)
            case "litellm":
                return LiteLLMProvider(spec.base_url, spec.api_key)
            case "scripted":
                return ScriptedProvider(load_script(spec.script or DEMO))
            case _:
                pass
    except (ScriptInvalid, ValueError) as error:
        raise ModelsInvalid(f"models.{spec.name}: {error}") from None
    known = ", ".join(PROVIDERS)
    raise ModelsInvalid(f"models.{spec.name}: there is no provider {spec.provider[:80]!r}; there are {known}")
