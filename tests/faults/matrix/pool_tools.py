"""The worker's tools: the ledger's, of every contract that a pool may serve, under names of their own."""

from kfm.type.v1 import type_pb2 as types

from tests.support.ledger import LedgerTool

TOOLS = [
    LedgerTool("pool_pure", types.EFFECT_CONTRACT_PURE),
    LedgerTool("pool_idempotent", types.EFFECT_CONTRACT_IDEMPOTENT),
    LedgerTool("pool_once", types.EFFECT_CONTRACT_AT_MOST_ONCE),
    LedgerTool("pool_compensatable", types.EFFECT_CONTRACT_COMPENSATABLE, "pool_undo"),
    LedgerTool("pool_undo", types.EFFECT_CONTRACT_IDEMPOTENT),
]
CONTRACTS = {
    "pure": "PURE",
    "idempotent": "IDEMPOTENT",
    "undo": "IDEMPOTENT",
    "transactional": "TRANSACTIONAL",
    "once": "AT_MOST_ONCE",
    "compensatable": "COMPENSATABLE",
}
"""By the second word of a tool's name, local or on the pool."""
CALLED = (
    "ledger_pure",
    "pool_idempotent",
    "ledger_transactional",
    "pool_once",
    "ledger_compensatable",
    "pool_pure",
    "ledger_idempotent",
    "pool_compensatable",
    "ledger_once",
)
"""What every turn calls, one after the other. A pool's worker has no database, so no TRANSACTIONAL tool."""
