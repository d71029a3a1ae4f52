"""`kfm personality ...` for packs: made, checked, tried, signed and installed, mostly without a server."""

import asyncio
import contextlib
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kfm_server.doors.cli.console import Yes, confirm
from kfm_server.doors.cli.own_server import home
from kfm_server.doors.cli.printing import Fields, Form, Format, Output, clean
from kfm_server.personalities import SHIPPED

if TYPE_CHECKING:
    from kfm_server.personalities.pack import Pack
    from kfm_server.personalities.trust import Trust

Source = Annotated[Path, typer.Argument(metavar="PACK", help="The pack's directory, or its zip archive.")]
Into = Annotated[
    Path | None,
    typer.Option(help="The packs' directory; else KFM_PACKS, else `personalities` in KFM_HOME."),
]
_INVALID = 2


def add_to(app: typer.Typer) -> None:
    """Make these commands of `kfm personality`."""
    for command in (new, lint, test, audit, build, install, uninstall, keygen, sign, verify):
        app.command()(command)


def new(
    name: str, directory: Annotated[Path | None, typer.Argument(help="Where; else ./NAME.")] = None
) -> None:
    """Make a new pack: a prompt, a tool, and a test of each."""
    from kfm_server.personalities.files import write
    from kfm_server.personalities.pack import check
    from kfm_server.personalities.problems import PackInvalid
    from kfm_server.personalities.scaffold import new_pack

    target = directory or Path(name)
    files = new_pack(name)
    try:
        check(files)
    except PackInvalid as error:
        raise typer.BadParameter(error.problems[0].text, param_hint="NAME") from None
    if target.exists():
        raise typer.BadParameter(f"{target} is there already", param_hint="DIRECTORY")
    with _writes(target):
        write(files, target)
    typer.echo(f"Made {target}. Next: kfm personality test {target}, then kfm personality install {target}")


def lint(pack: Source, output: Output = None, fields: Fields = "") -> None:
    """Check a pack; each problem with its file and line. Exit code 2 if there is one."""
    from kfm_server.personalities.installing import read
    from kfm_server.personalities.problems import PackInvalid

    form = Form(output, fields)
    try:
        problems = ()
        read(pack)
    except PackInvalid as error:
        problems = error.problems
    if not problems and form.format == Format.TABLE:
        typer.echo("No problems.")
    else:
        form.rows(problems, ("FILE", "LINE", "PROBLEM"), lambda p: (p.file, p.line or "", p.text), "file")
    if problems:
        raise typer.Exit(_INVALID)


def test(pack: Source, output: Output = None, fields: Fields = "") -> None:
    """Run the cases in its tests/: tools in the sandbox, messages with a model that follows the case. Exit code 1 if one fails."""
    from kfm_server.doors.cli.pack_cases import run_cases

    form = Form(output, fields)
    results = run_cases(_read(pack))
    form.rows(
        results, ("CASE", "PASSED", "WHY NOT"), lambda r: (r.case, "yes" if r.passed else "no", r.why), "case"
    )
    if not results:
        typer.echo("There are no cases: put some into tests/*.yaml", err=True)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def audit(pack: Source) -> None:
    """Tell what a pack may do, who signed it, and what looks strange in it."""
    from kfm_server.personalities.audit import permissions, remarks

    found = _read(pack)
    typer.echo(f"{found.name} {found.manifest.version}  {found.digest}")
    typer.echo(f"signed by: {_signer(found) or 'nobody that is known'}")
    typer.echo("It may:")
    for permission in sorted(map(str, permissions(found))):
        typer.echo(f"  {clean(permission)}")
    told = list(remarks(found))
    typer.echo("Look at:" if told else "Nothing looks strange.")
    for remark in told:
        typer.echo(f"  {clean(str(remark))}")


def build(pack: Source, archive: Annotated[Path, typer.Argument(help="The zip archive to write.")]) -> None:
    """Put a pack into an archive: the same bytes for the same files."""
    from kfm_server.personalities.files import to_archive

    content = to_archive(_read(pack).files)
    with _writes(archive):
        archive.write_bytes(content)
    typer.echo(f"Wrote {archive}")


def install(pack: Source, into: Into = None, yes: Yes = False) -> None:
    """Install a pack, or another version of it, where a server finds it; a running one takes it within seconds.

    What it may do, and could not before, is told and asked about first, and so is another signature.
    """
    from kfm_server.personalities.audit import permissions
    from kfm_server.personalities.installing import install as put
    from kfm_server.personalities.installing import installed

    found, where = _read(pack), into or packs_directory()
    before = installed(found.name, where)
    had = permissions(before) if before is not None else frozenset()
    fresh, gone = permissions(found) - had, had - permissions(found)
    signed, signer = (_signer(before) if before else "", _signer(found))
    told = [f"+ {p}" for p in sorted(map(str, fresh))] + [f"- {p}" for p in sorted(map(str, gone))]
    if signed != signer:
        told += [f"{mark} signed by {name}" for mark, name in (("+", signer), ("-", signed)) if name]
    if before is None and (SHIPPED / found.name).is_dir():
        told.append(f"- the {found.name} that ships: this one takes its place")
    for line in told:
        typer.echo(clean(line), err=True)
    if fresh or (signed and signed != signer):
        confirm(f"{found.name} {found.manifest.version} changes what stands above. Install it?", yes)
    with _writes(where):
        target = put(found, where)
    typer.echo(f"Installed {found.name} {found.manifest.version} in {target}")
    if found.manifest.tools and (why := _cannot_confine()):
        typer.echo(
            f"A server on this host will refuse it: its tools cannot be confined here: {why}", err=True
        )


def uninstall(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The pack's name.")], into: Into = None
) -> None:
    """Take an installed pack away. Turns that began with it keep it; one that ships under its name is there again."""
    from kfm_server.personalities.installing import uninstall as take_away

    where = into or packs_directory()
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not (where / name).is_dir():
        raise typer.BadParameter(f"there is no pack {name} in {where}", param_hint="NAME")
    with _writes(where):
        take_away(name, where)
    typer.echo(f"Took {name} out of {where}")


def keygen(
    private: Annotated[Path, typer.Argument(help="Where the private key goes; the public one next to it.")],
) -> None:
    """Make a pair of keys: sign with the private one, put the public one (.pub.pem) into `pack-keys` of servers' homes."""
    from kfm_server.personalities.trust import new_key

    shown = private.with_suffix(".pub.pem")
    for path in (private, shown):
        if path.exists():
            raise typer.BadParameter(f"{path} is there already", param_hint="PRIVATE")
    secret, public = new_key()
    with _writes(private):
        with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secret)
        shown.write_bytes(public)
    typer.echo(f"Wrote {private} and {shown}")


def sign(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="The pack's directory.")],
    key: Annotated[Path, typer.Option(help="The private key: PEM, Ed25519.")],
) -> None:
    """Sign a pack: writes signature.json into it. Any other change makes the signature invalid."""
    from kfm_server.personalities.files import SIGNATURE
    from kfm_server.personalities.trust import TrustError, private_key
    from kfm_server.personalities.trust import sign as signed

    if not pack.is_dir():
        raise typer.BadParameter("only a directory can be signed", param_hint="PACK")
    try:
        secret = private_key(key.read_bytes())
    except OSError as error:
        raise typer.BadParameter(f"{key}: {error.strerror}", param_hint="--key") from None
    except TrustError as error:
        raise typer.BadParameter(f"{key}: {error}", param_hint="--key") from None
    found = _read(pack)
    with _writes(pack):
        (pack / SIGNATURE).write_bytes(signed(found, secret))
    typer.echo(f"Signed {found.name} {found.manifest.version}  {found.digest}")


def verify(
    pack: Source,
    keys: Annotated[
        Path | None, typer.Option(help="Directory of public keys; else `pack-keys` in KFM_HOME.")
    ] = None,
) -> None:
    """Tell who signed exactly these files. Exit code 1 if that is nobody that is known."""
    if keys is not None and not keys.is_dir():
        raise typer.BadParameter(f"{keys} is no directory", param_hint="--keys")
    found = _read(pack)
    trust = _trust(keys)
    if why := trust.why_not(found):
        typer.echo(f"{found.name} {found.manifest.version}: signature.json {why}", err=True)
        raise typer.Exit(1)
    typer.echo(f"{found.name} {found.manifest.version}: signed by {trust.signer(found)}")


def packs_directory() -> Path:
    """Where a server that is started here finds its packs."""
    given = os.environ.get("KFM_PACKS")
    return Path(given) if given else home() / "personalities"


def _cannot_confine() -> str:
    from kfm_server.sandbox.probing import probe

    return next((t.reason for t in asyncio.run(probe()) if t.tier == "process" and not t.able), "")


def _read(source: Path) -> "Pack":
    from kfm_server.personalities.installing import read
    from kfm_server.personalities.problems import PackInvalid

    try:
        return read(source)
    except PackInvalid as error:
        for problem in error.problems:
            typer.echo(clean(str(problem)), err=True)
        raise typer.Exit(_INVALID) from None


@contextlib.contextmanager
def _writes(target: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise typer.BadParameter(f"{target} cannot be written: {error.strerror}") from None


def _signer(pack: "Pack") -> str:
    return _trust().signer(pack)


def _trust(keys: Path | None = None) -> "Trust":
    from kfm_server.personalities.trust import Trust, TrustError

    try:
        return Trust(keys or home() / "pack-keys")
    except TrustError as error:
        raise typer.BadParameter(str(error), param_hint="--keys") from None
