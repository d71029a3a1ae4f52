"""Restate: one handler with three journaled steps. Served by hypercorn."""

import restate

STEPS = 3
service = restate.Service("Bench")


async def add(i: int) -> int:
    """One step."""
    return i + 1


@service.handler()
async def flow(ctx: restate.Context, x: int) -> int:
    """Three steps."""
    for k in range(STEPS):
        x = await ctx.run_typed(f"s{k}", add, i=x)
    return x


app = restate.app([service])
