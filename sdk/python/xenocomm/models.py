"""`kfm.models`: the models that are configured at the server, called without a turn."""

from collections.abc import AsyncGenerator, Sequence

from xenocomm._gen.types import (
    EmbedResponse,
    Model,
    Prompt,
    PromptMessage,
    PromptRole,
    Reply,
    StreamGenerateResponse,
)
from xenocomm.arguments import new_key
from xenocomm.transport import Transport


class Models:
    """Models by their configured names. A prompt that is a text is what the user says."""

    def __init__(self, transport: Transport) -> None:
        """Made by Client."""
        self._transport = transport

    async def list(self) -> list[Model]:
        """All, in the order of the configuration."""
        answer = await self._transport.call("ProviderService.ListModels", {})
        return [Model.from_pb(m) for m in answer.models]

    async def generate(self, model: str, prompt: Prompt | str, *, idempotency_key: str = "") -> Reply:
        """One whole reply. Calls with the same key are one call; without one, each has its own."""
        fields = {
            "model": model,
            "prompt": _prompt(prompt).to_pb(),
            "idempotency_key": idempotency_key or new_key(),
        }
        answer = await self._transport.call("ProviderService.Generate", fields)
        return Reply.from_pb(answer.reply)

    async def stream(
        self, model: str, prompt: Prompt | str, *, idempotency_key: str = ""
    ) -> AsyncGenerator[StreamGenerateResponse]:
        """The reply in pieces as they come, and whole as the last one. Leaving it ends the call.

        Calls with the same key are one call, also with those of `generate`: who comes later gets the text in one piece.
        """
        fields = {"model": model, "prompt": _prompt(prompt).to_pb(), "idempotency_key": idempotency_key}
        stream = self._transport.stream("ProviderService.StreamGenerate", fields)
        try:
            while (piece := await stream.read()) is not None:
                yield StreamGenerateResponse.from_pb(piece)
        finally:
            stream.cancel()

    async def embed(self, model: str, texts: Sequence[str]) -> EmbedResponse:
        """A vector of each text, in order, and what that cost."""
        answer = await self._transport.call("ProviderService.Embed", {"model": model, "texts": list(texts)})
        return EmbedResponse.from_pb(answer)


def _prompt(prompt: Prompt | str) -> Prompt:
    if isinstance(prompt, Prompt):
        return prompt
    return Prompt(messages=(PromptMessage(role=PromptRole.USER, text=prompt),))
