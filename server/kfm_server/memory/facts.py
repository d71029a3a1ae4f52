"""Facts and preferences of users: short texts under names, with where each came from."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final, Literal, get_args

from kfm_server.ids import new_id
from kfm_server.memory.tenants import TenantPool
from kfm_server.ports.memory import Fact, Kind, MemoryInvalid

MAX_FACTS: Final = 10_000
"""Most facts and preferences of one user together."""
MAX_KEY: Final = 200
MAX_VALUE: Final = 4000
MAX_SOURCE: Final = 500
MAX_LISTED: Final = 500
_COLUMNS = "fact_id, user_id, kind, key, value, source, created_at, updated_at"
_HIS = "tenant_id = $1 and user_id = $2"
_COUNT = f"select count(*) from kfm_memory.facts where {_HIS}"
_PUT = f"""
insert into kfm_memory.facts (fact_id, tenant_id, user_id, kind, key, value, source)
values ($3, $1, $2, $4, $5, $6, $7)
on conflict (tenant_id, user_id, kind, key) do update set
    value = excluded.value, source = excluded.source, updated_at = now()
returning {_COLUMNS}
"""
_LIST = f"""
select {_COLUMNS} from kfm_memory.facts
where {_HIS} and ($3 = '' or kind = $3) and (kind, key) > ($4, $5)
order by kind, key limit $6
"""
_FORGET = f"delete from kfm_memory.facts where {_HIS} and kind = $3 and key = $4"


class Facts:
    """Facts and preferences, by tenant and user. Every method may raise MemoryUnavailable, MemoryInvalid."""

    name = "facts"

    def __init__(self, pool: TenantPool) -> None:
        self._pool = pool

    async def remember(
        self, tenant_id: str, user_id: str, kind: Kind, key: str, value: str, source: str
    ) -> Fact:
        """Keep it, in place of what was kept of this kind under this key. An empty key of a fact is a new one."""
        _check_user(user_id)
        if kind not in get_args(Kind):
            raise MemoryInvalid(f"{kind!r} is not one of {', '.join(get_args(Kind))}")
        fact_id = new_id("fact")
        if not key and kind == "fact":
            key = fact_id
        for name, text, most, least in (
            ("key", key, MAX_KEY, 1),
            ("value", value, MAX_VALUE, 1),
            ("source", source, MAX_SOURCE, 0),
        ):
            if not least <= len(text.strip()) <= len(text) <= most or "\0" in text:
                raise MemoryInvalid(f"a {name} has {least} to max_{name}={most} characters")
        async with self._pool.tenant(tenant_id) as connection:
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended($1, 0))", f"{tenant_id}\x1f{user_id}"
            )
            row = await connection.fetchrow(_PUT, tenant_id, user_id, fact_id, kind, key, value, source)
            if await connection.fetchval(_COUNT, tenant_id, user_id) > MAX_FACTS:
                raise MemoryInvalid(f"the user has max_facts={MAX_FACTS} facts and preferences")
        return _fact(row)

    async def known(
        self,
        tenant_id: str,
        user_id: str,
        kind: Kind | Literal[""] = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 100,
    ) -> Sequence[Fact]:
        """What is known of the user, by kind and key, from behind `after`, 1 to MAX_LISTED of it."""
        _check_user(user_id)
        if not 1 <= limit <= MAX_LISTED:
            raise MemoryInvalid(f"limit={limit} is not 1 to max_listed={MAX_LISTED}")
        async with self._pool.tenant(tenant_id) as connection:
            return [_fact(r) for r in await connection.fetch(_LIST, tenant_id, user_id, kind, *after, limit)]

    async def forget(self, tenant_id: str, user_id: str, kind: Kind, key: str) -> bool:
        """Forget one; answers whether there was one."""
        _check_user(user_id)
        async with self._pool.tenant(tenant_id) as connection:
            return await connection.execute(_FORGET, tenant_id, user_id, kind, key) != "DELETE 0"

    async def export(self, tenant_id: str, user_id: str) -> AsyncGenerator[Mapping[str, Any]]:
        """As UserData says."""
        after = ("", "")
        while found := await self.known(tenant_id, user_id, after=after, limit=MAX_LISTED):
            for fact in found:
                yield {
                    "kind": fact.kind,
                    "key": fact.key,
                    "value": fact.value,
                    "source": fact.source,
                    "created_at": fact.created_at.isoformat(),
                    "updated_at": fact.updated_at.isoformat(),
                }
            after = (found[-1].kind, found[-1].key)

    async def erase(self, tenant_id: str, user_id: str) -> int:
        """As UserData says."""
        _check_user(user_id)
        async with self._pool.tenant(tenant_id) as connection:
            done = await connection.execute(f"delete from kfm_memory.facts where {_HIS}", tenant_id, user_id)
        return int(done.split()[-1])


def _check_user(user_id: str) -> None:
    if not user_id or len(user_id) > 255 or "\0" in user_id:
        raise MemoryInvalid("a user's id has 1 to max_user=255 characters")


def _fact(row: Any) -> Fact:
    return Fact(*row)
