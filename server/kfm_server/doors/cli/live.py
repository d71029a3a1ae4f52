"""A turn as it happens, on a terminal: the answer's text on standard output, what is done for it on standard error."""

import sys
from typing import TYPE_CHECKING

import typer

from kfm_server.doors.cli.printing import clean

if TYPE_CHECKING:
    from xenocomm import Envelope, TurnUpdate

_MOST = 100


class Live:
    """Takes updates one by one. `shown` is the text that stands on the screen since the last break."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self.shown = ""
        self._writer = ("", 0)

    def update(self, update: "TurnUpdate") -> None:
        """Show what it says."""
        delta = update.delta
        if delta is not None and delta.text:
            if self._writer != (delta.step_key, delta.attempt):
                self.rest()
                if self._writer[0] == delta.step_key:
                    typer.echo("(once more, from the start)", err=True)
            self._writer = delta.step_key, delta.attempt
            self.shown += delta.text
            sys.stdout.write(clean(delta.text))
            sys.stdout.flush()
        elif delta is not None and delta.progress:
            self._note(f"{delta.step_key}: {delta.progress}")
        elif update.gap is not None:
            self._note("(some output was dropped; the turn has the whole)")
        elif update.event is not None:
            self._event(update.event)

    def rest(self) -> None:
        """End the line that is being written."""
        if self.shown and not self.shown.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
        self.shown = ""

    def _event(self, envelope: "Envelope") -> None:
        from xenocomm._gen.types import StepEvent, StepKind

        event = envelope.event
        if isinstance(event, StepEvent) and event.step_type in (StepKind.TOOL, StepKind.HTTP):
            self._note(f"{event.tool or event.step_key} {event.parameters_json}")

    def _note(self, text: str) -> None:
        self.rest()
        typer.echo(clean(text if len(text) <= _MOST else f"{text[:_MOST]}…"), err=True)
