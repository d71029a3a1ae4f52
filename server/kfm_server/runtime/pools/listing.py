"""What operators see of worker pools."""

from collections.abc import Iterable

from kfm.admin.v1 import admin_service_pb2 as admin

from kfm_server.runtime.pools.job import Job
from kfm_server.runtime.pools.worker import Workers
from kfm_server.tool_catalogue import ToolCatalogue


def workers_of(workers: Workers, pool: str) -> list[admin.Worker]:
    """Those that are connected here, by pool and name; of one pool, if named."""
    return [
        admin.Worker(
            worker=worker.name,
            pool=worker.pool,
            capacity=worker.capacity,
            running=len(worker.held),
            program=worker.hello.program,
            schema_release=worker.hello.schema_release,
            since=worker.since,
        )
        for _, worker in sorted(workers.items())
        if worker.send is not None and pool in ("", worker.pool)
    ]


def pools_of(jobs: Iterable[Job], tools: ToolCatalogue, pool: str) -> list[admin.Pool]:
    """Those that have tools or attempts here, by name; one pool, if named."""
    pools: dict[str, admin.Pool] = {}
    for tool in tools.values():
        if tool.pool and pool in ("", tool.pool):
            pools.setdefault(tool.pool, admin.Pool(pool=tool.pool)).tools.append(tool.name)
    for job in jobs:
        name = job.attempt.pool
        if pool in ("", name):
            counts = pools.setdefault(name, admin.Pool(pool=name))
            if job.worker is None:
                counts.waiting += 1
            else:
                counts.running += 1
    return [pools[name] for name in sorted(pools)]
