"""What providers document of their errors, served over HTTP as it stands there, and what each adapter makes of it.

`provider_errors.json` holds the bodies, each with the document that it comes from.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from kfm_server.ports.models import Message, ModelProvider, ModelRequest, ProviderError
from kfm_server.providers.litellm_adapter import LiteLLMProvider
from kfm_server.providers.openai_http import OpenAIProvider
from kfm_server.secret import Secret

from tests.support.raw_http import raw_server, whole

pytestmark = pytest.mark.requirement("P2")

KEY = Secret("sk-planted-secret-0123456789")
CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("provider_errors.json").read_text())
SPOKEN = {
    "openai": ("direct", "openai/small"),
    "anthropic": ("anthropic/claude-sonnet-4-5",),
    "ollama": ("direct", "ollama_chat/llama3"),
    "vllm": ("direct", "openai/small"),
    "llama.cpp": ("direct", "openai/small"),
}
"""By whom a provider is asked: the direct adapter, or LiteLLM by its name of the model."""


def adapter(how: str, url: str) -> ModelProvider:
    if how == "direct":
        return OpenAIProvider(url, KEY)
    return LiteLLMProvider(url if how.startswith("openai/") else url.removesuffix("/v1"), KEY)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("case", "how"),
    [
        pytest.param(case, how, id=f"{case['provider']}: {case['case']} by {how.partition('/')[0]}")
        for case in CASES
        for how in SPOKEN[case["provider"]]
    ],
)
async def test_an_error_of_a_provider_becomes_ours(case: dict[str, Any], how: str, stream: bool) -> None:
    headers = {"Date": "Sat, 21 Nov 2026 10:00:00 GMT", "x-request-id": "req-1", **case["headers"]}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = whole(json.dumps(case["body"]), status=f"{case['status']} As documented", headers=lines)
    async with raw_server(answer) as raw:
        provider = adapter(how, raw.url)
        request = ModelRequest(how if how != "direct" else "small", (Message("user", "hello"),))
        with pytest.raises(ProviderError) as caught:
            if stream:
                _ = [item async for item in provider.stream(request)]
            else:
                await provider.generate(request)
        await provider.close()
        assert len(raw.requests) == 1, "only the engine retries"
    error = caught.value
    assert (error.reason, error.retryable) == (case["reason"], case["retryable"]), error.message
    assert error.retry_after_ms == case["retry_after_ms"]
    assert KEY.reveal() not in f"{error} {error!r}"
