"""How processes share the partitions: each computes the same from the same table, so none has to be asked."""

from collections.abc import Mapping


def share(owner: str, runtimes: Mapping[str, int], partitions: int) -> int:
    """How many partitions are the owner's: as many as anyone's; what cannot be divided is with those that hold most.

    `runtimes`: how many each process holds now; the owner is one of them.
    """
    even, left = divmod(partitions, len(runtimes))
    order = sorted(runtimes, key=lambda name: (-runtimes[name], name))
    return even + (order.index(owner) < left)


def beyond(owner: str, runtimes: Mapping[str, int], partitions: int) -> int:
    """How many partitions the owner holds beyond its share, as far as others lack them."""
    lacking = sum(max(0, share(other, runtimes, partitions) - held) for other, held in runtimes.items())
    return max(0, min(runtimes[owner] - share(owner, runtimes, partitions), lacking))
