"""The way into and out of every command: what goes wrong becomes one line, or one JSON object, and an exit code."""

import errno
import os
import sys
import warnings
from collections.abc import Sequence

import typer

from kfm_server.doors.cli.console import refused, show_error
from kfm_server.doors.cli.printing import Form, Format

_OUTPUT_LOST = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)


def run(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run one command; answers the exit code. Nothing that a user can type ends in a traceback."""
    if not sys.stdout:  # started with its output closed
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    json_wanted = Form(_format(arguments)).json
    warnings.showwarning = _warned
    try:
        _only_unicode(arguments)
        code: object = app(list(arguments), prog_name="kfm", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as wrong:
        return _usage(wrong, json_wanted)
    except typer.Abort:
        return 130
    except OSError as error:
        if error.errno not in _OUTPUT_LOST:
            raise
        # What is still buffered must not fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        refused("REASON_INTERNAL", f"the output could not be written: {error.strerror}", 1, json_wanted)
        return 1
    except Exception as error:
        from xenocomm import XenocommError

        if not isinstance(error, XenocommError):
            raise
        show_error(error, json_wanted)
        return error.exit_code
    return code if isinstance(code, int) else 0


def _warned(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """One line on stderr, of warnings that are for users."""
    if issubclass(category, UserWarning):
        typer.echo(f"warning: {message}", err=True)


def _usage(wrong: typer.TyperException, json_wanted: bool) -> int:
    if type(wrong).__name__ == "NoArgsIsHelpError":
        return 2  # the help was printed instead
    context = getattr(wrong, "ctx", None)
    where = f"; see {context.command_path} --help" if context is not None else ""
    options = getattr(getattr(wrong, "param", None), "opts", None)
    field = max(options, key=len) if options else getattr(wrong, "param_hint", None) or ""
    text = " ".join(str(getattr(wrong, "format_message", wrong.__str__)()).split()).rstrip(".")
    refused("REASON_INVALID_ARGUMENT", f"{text}{where}", 2, json_wanted, str(field))
    return 2


def _format(arguments: Sequence[str]) -> Format | None:
    """The output format that was asked for, also when the rest of the line cannot be parsed."""
    for option, value in zip(arguments, [*arguments, ""][1:], strict=True):
        for form in Format:
            if option in (f"-o{form}", f"--output={form}") or (
                option in ("-o", "--output") and value == form
            ):
                return form
    return None


def _only_unicode(arguments: Sequence[str]) -> None:
    """BadParameter if an argument is not UTF-8: Python hands its bytes on as surrogates, which nothing takes."""
    for number, argument in enumerate(arguments):
        if argument.isascii() or argument.encode(errors="replace").decode() == argument:
            continue
        before = arguments[number - 1] if number else ""
        option = argument.partition("=")[0] if argument.startswith("-") else before
        name = option if option.startswith("-") and option.isascii() else f"argument {number + 1}"
        raise typer.BadParameter("it is not UTF-8", param_hint=name)
