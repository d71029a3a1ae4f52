"""LangGraph: three nodes, the Postgres checkpointer, durability sync.

Usage: python -m bench.peers.langgraph_client DSN
"""

import asyncio
import sys
import uuid
from typing import Any, TypedDict

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from bench.driver import obey

STEPS = 3
CALLERS = 64


class State(TypedDict):
    """A counter."""

    x: int


async def _node(state: State) -> State:
    return {"x": state["x"] + 1}


def _build(saver: AsyncPostgresSaver) -> Any:
    graph = StateGraph(State)
    for k in range(STEPS):
        graph.add_node(f"n{k}", _node)
        graph.add_edge(START if k == 0 else f"n{k - 1}", f"n{k}")
    graph.add_edge(f"n{STEPS - 1}", END)
    return graph.compile(checkpointer=saver)


async def main(dsn: str) -> None:
    """Run the closed loop in this process: LangGraph is a library."""
    options: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(dsn, min_size=CALLERS, max_size=CALLERS, kwargs=options) as pool:
        await AsyncPostgresSaver(pool).setup()
        # A saver holds one lock for all its calls: each caller gets its own, as LangGraph's fastest use.
        graphs = [_build(AsyncPostgresSaver(pool)) for _ in range(CALLERS)]

        async def one(number: int) -> None:
            config = {"configurable": {"thread_id": uuid.uuid4().hex}}
            out = await graphs[number % CALLERS].ainvoke({"x": 0}, config, durability="sync")
            if out["x"] != STEPS:
                raise RuntimeError(f"LangGraph answered {out}")

        await obey(one)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
