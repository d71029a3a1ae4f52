"""Embedding by a configured model: identities, lengths, and what a provider may answer."""

from collections.abc import Sequence

import pytest
from kfm_server.memory.provider_embedder import TEXTS_AT_ONCE, EmbeddingModel, ProviderEmbedder
from kfm_server.ports.embedder import EmbedderFailed
from kfm_server.ports.models import Embeddings, ProviderError, TokenUsage
from kfm_server.ports.vectors import EmbedderIdentity
from kfm_server.providers.scripted import ScriptedProvider
from kfm_server.providers.scripts import DEMO, load_script

pytestmark = pytest.mark.requirement("M2", "P1")


class Answering(ScriptedProvider):
    """Answers these vectors, or fails."""

    def __init__(self, *answers: Sequence[Sequence[float]] | ProviderError) -> None:
        super().__init__(load_script(DEMO))
        self.answers = list(answers)
        self.asked: list[int] = []

    async def embed(self, model: str, texts: Sequence[str]) -> Embeddings:
        """The next answer; the script's when there is none."""
        self.asked.append(len(texts))
        if not self.answers:
            return await super().embed(model, texts)
        answer = self.answers.pop(0)
        if isinstance(answer, ProviderError):
            raise answer
        return Embeddings(tuple(map(tuple, answer)), TokenUsage())


def embedder(provider: ScriptedProvider, model: str = "m") -> ProviderEmbedder:
    """Over it."""
    return ProviderEmbedder(lambda: EmbeddingModel(provider, "scripted", model))


async def test_its_identity_is_the_model_and_what_it_answers_first() -> None:
    provider = Answering()
    made = embedder(provider)
    assert await made.identity() == EmbedderIdentity("scripted:m", 64)
    await made.identity()
    assert provider.asked == [1]


async def test_vectors_come_in_order_with_length_one_in_calls_of_a_bounded_size() -> None:
    provider = Answering([[3.0, 4.0]] * TEXTS_AT_ONCE, [[0.0, 0.0], [0.0, -2.0]])
    vectors = await embedder(provider).embed(["x"] * (TEXTS_AT_ONCE + 2))
    assert provider.asked == [TEXTS_AT_ONCE, 2]
    assert [list(v) for v in vectors[-3:]] == [[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]]


async def test_vectors_of_two_lengths_are_refused() -> None:
    with pytest.raises(EmbedderFailed, match="not all of 2"):
        await embedder(Answering([[1.0, 0.0], [1.0]])).embed(["a", "b"])
    with pytest.raises(EmbedderFailed, match="max_dims=4000"):
        await embedder(Answering([[1.0] * 4001])).embed(["a"])


@pytest.mark.parametrize("retryable", [True, False])
async def test_a_providers_failure_keeps_its_words_and_whether_to_try_again(retryable: bool) -> None:
    error = ProviderError("REASON_PROVIDER_UNAVAILABLE", "It is away.", retryable)
    with pytest.raises(EmbedderFailed, match=r"scripted:m: It is away\.") as caught:
        await embedder(Answering(error)).embed(["a"])
    assert caught.value.retryable is retryable
