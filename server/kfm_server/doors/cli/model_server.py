"""`kfm model-server`: a model to develop against, without a key and without a network."""

import asyncio
import signal
from typing import Annotated

import typer

from kfm_server.doors.binding import is_loopback, split_address

DEFAULT_ADDRESS = "127.0.0.1:7700"


def model_server(
    address: Annotated[
        str, typer.Option(help="host:port to listen at; port 0 takes a free one.")
    ] = DEFAULT_ADDRESS,
    script: Annotated[
        str,
        typer.Option(help="File that says what the model answers, or demo; format: docs/model-scripts.md."),
    ] = "demo",
    token: Annotated[str, typer.Option(help="Key that calls must carry; empty asks for none.")] = "",
) -> None:
    """Run a scripted model behind the HTTP APIs of OpenAI, Anthropic and Ollama, for development and tests."""
    from kfm_server.providers.dev_server.server import DevServer, serve
    from kfm_server.providers.scripts import ScriptInvalid, load_script

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        host, port = split_address(address)
        if not token and not is_loopback(host):
            raise ValueError(f"{address} can be reached from other machines: give it a --token")
        await serve(DevServer(load_script(script), token), host, port, typer.echo, stop)

    try:
        asyncio.run(run())
    except (ScriptInvalid, ValueError) as wrong:
        typer.echo(f"error: {wrong}", err=True)
        raise typer.Exit(2) from None
    except OSError as failed:
        typer.echo(f"error: cannot listen at {address}: {failed.strerror}", err=True)
        raise typer.Exit(1) from None
