"""Retrieval: does it find the right document, the true nearest vectors, always k of them, and how fast.

    .venv/bin/python -m bench.retrieval                  quality, then 10,000 and 100,000 vectors
    .venv/bin/python -m bench.retrieval --only quality
    .venv/bin/python -m bench.retrieval --only speed --counts 10000

One JSON line for each measurement, on standard output; what goes on, on standard error.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
import tomllib
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
from kfm_server.journal import embedded
from kfm_server.journal.migrate import migrate
from kfm_server.memory.documents import DocumentStore
from kfm_server.memory.filestore import FileVectorStore
from kfm_server.memory.hashing import IDENTITY, HashingEmbedder, hashed
from kfm_server.memory.knowledge import IngestReport, KnowledgeBase
from kfm_server.memory.pgvector import PARTITIONS, PgVectorStore
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.memory import Mode
from kfm_server.ports.vectors import VectorItem, VectorStore

from bench.retrieval_corpus import documents, texts

QUERIES = Path(__file__).with_name("retrieval_queries.toml")
K = 10
SHARES = {"large": 0.81, "medium": 0.09, "neighbour": 0.09, "small": 0.01}
"""Tenants and their shares of all vectors; each has one collection. The neighbour stands in one part of the table with the
large one, the others stand alone."""
RARE = 50
"""One vector in so many has the metadata that the filtered query asks for."""


def say(text: str) -> None:
    """What goes on."""
    print(text, file=sys.stderr, flush=True)


def tell(**facts: object) -> None:
    """A result."""
    print(json.dumps(facts), flush=True)


@asynccontextmanager
async def postgres() -> AsyncGenerator[str]:
    """The DSN of a fresh, migrated database on a real disk."""
    with tempfile.TemporaryDirectory(prefix="kfm-retrieval-", dir="/var/tmp") as home:
        os.chmod(home, 0o755)
        server = await embedded.start(Path(home))
        try:
            await migrate(server.dsn)
            yield server.dsn
        finally:
            await server.stop()


async def quality() -> None:
    """Over the real documents: is a right one among the first ten, and how far up."""
    async with postgres() as dsn, TenantPool.open(dsn) as pool:
        base = KnowledgeBase(DocumentStore(pool), PgVectorStore(pool), HashingEmbedder())
        say("reading documents")
        began = time.perf_counter()

        def told(report: IngestReport, source: str) -> None:
            if report.seen % 1000 == 0:
                say(f"  {report.seen} documents, {report.chunks} chunks, {source}")

        report = await base.ingest("acme", "docs", documents(), told=told)
        seconds = time.perf_counter() - began
        again = time.perf_counter()
        unchanged = await base.ingest("acme", "docs", documents())
        tell(
            name="ingest",
            documents=report.added,
            failed=report.failed,
            chunks=report.chunks,
            seconds=round(seconds, 1),
            again_seconds=round(time.perf_counter() - again, 1),
            again_unchanged=unchanged.unchanged,
        )
        there = await DocumentStore(pool).digests("acme", "docs")
        queries = [
            (text, set(right) & there.keys())
            for text, *right in tomllib.loads(QUERIES.read_text("utf-8"))["queries"]
        ]
        missing = [text for text, right in queries if not right]
        if missing:
            say(f"left out, the documents are not here: {missing}")
        async with pool.tenant("acme") as connection:
            await connection.fetchval("select count(*) from kfm_memory.chunks")
        asked = [(text, right) for text, right in queries if right]
        modes: tuple[Mode, ...] = ("vector", "keyword", "hybrid")
        for mode in modes:
            ranks: list[int] = []
            taken: list[float] = []
            for text, right in asked:
                began = time.perf_counter()
                found = await base.search("acme", "ann", text, k=K, mode=mode)
                taken.append(time.perf_counter() - began)
                ranks.append(next((n for n, p in enumerate(found, 1) if p.source in right), 0))
                if not ranks[-1]:
                    say(f"  {mode}: not found: {text}")
            tell(
                name="quality",
                mode=mode,
                queries=len(asked),
                left_out=len(missing),
                hit_at_1=round(sum(r == 1 for r in ranks) / len(ranks), 3),
                hit_at_10=round(sum(r > 0 for r in ranks) / len(ranks), 3),
                mrr=round(sum(1 / r for r in ranks if r) / len(ranks), 3),
                **spread(taken),
            )


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile, in milliseconds."""
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def rss() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def speed(counts: Sequence[int]) -> None:
    """Over vectors of real texts: recall against exact search, k, time and memory."""
    say(f"embedding {max(counts)} texts")
    with ProcessPoolExecutor(2) as workers:
        vectors = np.array(list(workers.map(hashed, texts(max(counts)), chunksize=500)), dtype=np.float32)
    vectors = vectors[np.linalg.norm(vectors, axis=1) > 0]
    random_ = random.Random(1)
    order = list(range(len(vectors)))
    random_.shuffle(order)
    queries = np.array(
        [hashed(" ".join(text.split()[3:40])) for text, _ in zip(texts(200), range(200), strict=False)]
    )
    for count in counts:
        await _speed(vectors[order[:count]], queries)


async def _tenants(connection: Any, table: str) -> list[str]:
    """Names for SHARES, by the part of the table in which each comes to stand."""
    found: dict[str, int] = {}
    for share in SHARES:
        for n in range(1000):
            part = await connection.fetchval(
                "select r from generate_series(0, $2 - 1) r where"
                " satisfies_hash_partition($1::text::regclass, $2, r, $3::text, 'docs'::text)",
                f"kfm_memory.{table}",
                PARTITIONS,
                f"{share}-{n}",
            )
            fits = part == found["large-0"] if share == "neighbour" else part not in found.values()
            if fits:
                found[f"{share}-{n}"] = part
                break
    return list(found)


async def _speed(vectors: Any, queries: Any) -> None:
    bounds = np.cumsum([0, *(int(len(vectors) * share) for share in SHARES.values())])
    with tempfile.TemporaryDirectory(dir="/var/tmp") as home:
        async with (
            postgres() as dsn,
            TenantPool.open(dsn) as pool,
            FileVectorStore.open(Path(home) / "vectors.sqlite") as file,
        ):
            store = PgVectorStore(pool)
            before = rss()
            await store.upsert("nobody", "docs", IDENTITY, [VectorItem("first", vectors[0])])
            connection: Any = await asyncpg.connect(dsn)
            table = await connection.fetchval(
                "select relname from pg_class where relname like 'vectors\\_%' and relkind = 'p'"
            )
            tenants = await _tenants(connection, table)
            parts = {tenant: (bounds[n], bounds[n + 1]) for n, tenant in enumerate(tenants)}
            # One by one they take minutes; what is measured is the search.
            index = await connection.fetchval(
                "select indexdef from pg_indexes where indexname = $1", f"{table}_hnsw"
            )
            await connection.execute(f"drop index kfm_memory.{table}_hnsw")
            for name, made in (("pgvector", store), ("file", file)):
                began = time.perf_counter()
                await _fill(made, vectors, parts)
                say(f"{name}: {len(vectors)} vectors in {time.perf_counter() - began:.1f} s")
            began = time.perf_counter()
            await connection.execute("set maintenance_work_mem = '600MB'")
            await connection.execute(index.replace(" ON ONLY ", " ON "))
            say(f"index: {time.perf_counter() - began:.1f} s")
            await connection.execute("vacuum analyze")
            sizes = await connection.fetchrow(
                "select (select sum(pg_relation_size(relid)) from pg_partition_tree($1::text::regclass)),"
                " (select sum(pg_relation_size(relid)) from pg_partition_tree($2::text::regclass))",
                f"kfm_memory.{table}",
                f"kfm_memory.{table}_hnsw",
            )
            await connection.close()
            stores: tuple[tuple[str, VectorStore], ...] = (("pgvector", store), ("file", file))
            for tenant, (start, end) in parts.items():
                mine = vectors[start:end]
                for rare in (False, True):
                    places = np.arange(0, len(mine), RARE) if rare else np.arange(len(mine))
                    true = [_true(mine[places], places, query) for query in queries]
                    for name, made in stores:
                        await _measure(name, made, tenant, len(vectors), len(mine), queries, true, rare)
            tell(
                name="memory",
                vectors=len(vectors),
                table_mb=round(float(sizes[0]) / 1e6),
                hnsw_mb=round(float(sizes[1]) / 1e6),
                file_mb=round((Path(home) / "vectors.sqlite").stat().st_size / 1e6),
                process_grew_mb=round((rss() - before) / 1e6),
            )


async def _fill(store: VectorStore, vectors: Any, parts: dict[str, tuple[int, int]]) -> None:
    for tenant, (start, end) in parts.items():
        mine = vectors[start:end]
        for at in range(0, len(mine), 2000):
            items = [
                VectorItem(str(n), mine[n], {"kind": "rare" if n % RARE == 0 else "common"})
                for n in range(at, min(at + 2000, len(mine)))
            ]
            await store.upsert(tenant, "docs", IDENTITY, items)


def _true(rows: Any, places: Any, query: Any) -> tuple[set[str], float]:
    """The true nearest, and the likeness of the last of them: others may be as near."""
    scores = rows @ query.astype(np.float32)
    best = np.argsort(-scores, kind="stable")[:K]
    return {str(places[n]) for n in best}, float(scores[best[-1]])


async def _measure(
    name: str,
    store: VectorStore,
    tenant: str,
    vectors: int,
    mine: int,
    queries: Any,
    true: Sequence[tuple[set[str], float]],
    rare: bool,
) -> None:
    where = {"kind": "rare"} if rare else None

    async def search(query: Any) -> Any:
        return await store.search(tenant, "docs", IDENTITY, query, K, where)

    await _each(search, queries[:20])
    taken, found = await _each(search, queries)
    right = sum(
        sum(hit.id in nearest or hit.score >= last - 1e-3 for hit in hits)
        for hits, (nearest, last) in zip(found, true, strict=True)
    )
    wanted = sum(len(nearest) for nearest, _ in true)
    tell(
        name="search",
        store=name,
        vectors=vectors,
        tenant=tenant,
        of_tenant=mine,
        filtered=rare,
        recall_at_10=round(right / wanted, 4),
        least_found=min(len(hits) for hits in found),
        **spread(taken),
    )


async def _each(search: Callable[[Any], Awaitable[Any]], queries: Any) -> tuple[list[float], list[Any]]:
    taken: list[float] = []
    found: list[Any] = []
    for query in queries:
        began = time.perf_counter()
        found.append(await search(query))
        taken.append(time.perf_counter() - began)
    return taken, found


async def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("quality", "speed"))
    parser.add_argument("--counts", default="10000,100000", help="how many vectors, separated by commas")
    given = parser.parse_args()
    if given.only != "speed":
        await quality()
    if given.only != "quality":
        await speed([int(count) for count in given.counts.split(",")])


if __name__ == "__main__":
    asyncio.run(main())
