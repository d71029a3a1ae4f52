"""`kfm memory ...`: documents that are searched, and what is kept of users."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from kfm_server.doors.cli.console import NOT_FOUND, Endpoint, Token, Yes, confirm, with_client
from kfm_server.doors.cli.document_files import find
from kfm_server.doors.cli.printing import Fields, Form, Output, clean
from kfm_server.doors.cli.show import time_of

if TYPE_CHECKING:
    from xenocomm import Client
    from xenocomm._gen.types import Collection, Passage

app = typer.Typer(
    no_args_is_help=True, help="Memory: documents that are searched, and what is kept of users."
)

Name = Annotated[str, typer.Argument(help="The collection's name.")]
User = Annotated[str, typer.Argument(help="The user's id.")]
_SHOWN: Final = 200
"""Characters of a passage in a table."""


@app.command()
def add(
    collection: Name,
    paths: Annotated[list[Path], typer.Argument(exists=True, help="Documents, and folders of them.")],
    owner: Annotated[str, typer.Option(help="The user whose the collection is alone.")] = "",
    remove_missing: Annotated[
        bool,
        typer.Option(
            "--remove-missing", help="Forget what the collection has and these paths have not any more."
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Name the files that are skipped for their type.")
    ] = False,
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Have documents in a collection: Markdown, text, HTML, PDF. What is unchanged stays; one that cannot be read is named, and the exit code is 2.

    Below a folder, a document is called by its path from there; otherwise by its path from the working directory.
    Of a folder are read .md, .markdown, .txt, .text, .rst, .html, .htm, .xhtml and .pdf; other files are counted as skipped.
    """
    form = Form(output)
    found = find(paths)
    for name, count in Counter(source for source, _ in found.documents).items():
        if count > 1:
            raise typer.BadParameter(
                f"{count} documents are called {name}: add a folder above them, or each to a collection of its own",
                param_hint="paths",
            )

    if remove_missing and not found.documents:
        raise typer.BadParameter("there is no document to read: nothing is removed", param_hint="paths")

    async def body(client: "Client") -> None:
        from xenocomm._gen.errors import InvalidArgument, PayloadTooLarge

        from kfm_server.doors.grpc.limits import Limits

        most = Limits().max_message_bytes
        counts: dict[str, int] = {"added": 0, "changed": 0, "unchanged": 0, "removed": 0}
        failed: list[dict[str, str]] = []

        def fail(source: str, why: str) -> None:
            failed.append({"source": source, "why": why})
            typer.echo(f"{source}: {why}", err=True)

        if verbose:
            for source in found.skipped:
                typer.echo(f"{clean(source)}: skipped, its type is not read", err=True)
        for source, why in found.refused:
            fail(source, why)
        for source, path in found.documents:
            try:
                with path.open("rb") as file:
                    read = file.read(most + 1)
                if len(read) > most:
                    fail(source, f"it is over max_message_bytes={most}, the largest request of the API")
                    continue
                done = await client.memory.put_document(collection, source, read, owner=owner)
            except (InvalidArgument, PayloadTooLarge, OSError) as error:
                fail(source, str(error).removeprefix(f"{source}: "))
            else:
                counts[done.name.lower()] = counts.get(done.name.lower(), 0) + 1
        if remove_missing and found.unread:
            typer.echo("nothing is removed, because a folder could not be read", err=True)
        elif remove_missing:
            here = {source for source, _ in found.documents}
            for document in await client.memory.documents(collection):
                if document.source not in here:
                    counts["removed"] += await client.memory.remove_document(collection, document.source)
        told = {**counts, "skipped": len(found.skipped), "failed": len(failed)}
        text = ", ".join(f"{count} {what}" for what, count in told.items())
        form.one({**told, "failures": failed}, lambda: typer.echo(text), "")
        if failed:
            raise typer.Exit(2)

    with_client(endpoint, token, body)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="What is looked for.")],
    collection: Annotated[list[str] | None, typer.Option(help="Of these alone; may be repeated.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=50, help="Most passages.")] = 8,
    user: Annotated[str, typer.Option(help="On whose behalf; else the caller's.")] = "",
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """The passages that answer a question best, best first."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        found = await client.memory.search(query, collections=collection or (), limit=limit, user=user)
        form.rows(found, ("SCORE", "COLLECTION", "SOURCE", "TEXT"), _passage_row, "source")

    with_client(endpoint, token, body)


@app.command("list")
def list_(
    user: Annotated[str, typer.Option(help="What this user may read; else what the caller may.")] = "",
    output: Output = None,
    fields: Fields = "",
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """List collections."""
    form = Form(output, fields)

    async def body(client: "Client") -> None:
        found = await client.memory.collections(user=user)
        form.rows(found, ("COLLECTION", "OWNER", "DOCUMENTS", "SINCE"), _collection_row, "collection")

    with_client(endpoint, token, body)


@app.command()
def remove(
    collection: Name,
    sources: Annotated[list[str], typer.Argument(help="Names of documents, as search shows them.")],
    output: Output = None,
    endpoint: Endpoint = None,
    token: Token = None,
) -> None:
    """Forget documents of a collection. What is not there is named, and the exit code is 3."""
    form = Form(output)

    async def body(client: "Client") -> None:
        missing: list[str] = []
        for source in dict.fromkeys(sources):
            if not await client.memory.remove_document(collection, source):
                missing.append(source)
                typer.echo(f"{collection} has no document {clean(source)}", err=True)
        count = len(set(sources)) - len(missing)
        told = {"collection": collection, "removed": count, "missing": missing}
        form.one(told, lambda: typer.echo(f"{count} documents forgotten"), "collection")
        if missing:
            raise typer.Exit(NOT_FOUND)

    with_client(endpoint, token, body)


@app.command()
def drop(
    collection: Name, yes: Yes = False, output: Output = None, endpoint: Endpoint = None, token: Token = None
) -> None:
    """Forget a collection and all its documents. Asks first; a program says --yes."""
    confirm(f"Forget all of {collection}?", yes)
    form = Form(output)

    async def body(client: "Client") -> None:
        count = await client.memory.drop_collection(collection)
        told = {"collection": collection, "documents": count}
        form.one(told, lambda: typer.echo(f"{count} documents forgotten"), "collection")

    with_client(endpoint, token, body)


@app.command()
def export(user: User, endpoint: Endpoint = None, token: Token = None) -> None:
    """All that is kept of a user outside of turns: a line of JSON for each thing."""

    async def body(client: "Client") -> None:
        async for thing in client.memory.export_user(user):
            typer.echo(json.dumps({"kind": thing.kind, **json.loads(thing.value_json)}, ensure_ascii=False))

    with_client(endpoint, token, body)


@app.command()
def erase(
    user: User, yes: Yes = False, output: Output = None, endpoint: Endpoint = None, token: Token = None
) -> None:
    """Erase all that is kept of a user outside of turns, for good. Asks first; a program says --yes."""
    confirm(f"Erase all that is kept of {user}?", yes)
    form = Form(output)

    async def body(client: "Client") -> None:
        erased = await client.memory.erase_user(user)
        text = ", ".join(f"{count} {kind}" for kind, count in sorted(erased.items()))
        form.one({"user": user, "erased": erased}, lambda: typer.echo(f"erased: {text}"), "user")

    with_client(endpoint, token, body)


def _passage_row(passage: "Passage") -> tuple[object, ...]:
    return (
        f"{passage.score:.4f}",
        passage.collection,
        passage.source,
        " ".join(passage.text.split())[:_SHOWN],
    )


def _collection_row(collection: "Collection") -> tuple[object, ...]:
    return collection.collection, collection.owner, collection.documents, time_of(collection.created_at)
