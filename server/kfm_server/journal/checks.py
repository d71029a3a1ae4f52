"""What is checked of an entry before it reaches any journal, and how failures spread to what waits behind."""

from kfm_server.ports.journal import Entry, Fenced, JournalUnavailable, Rejected


def turns_of(entry: Entry) -> frozenset[str]:
    """The turns that an entry touches."""
    ids = {record.turn_id for record in entry.records}
    ids.update(turn.turn_id for turn in entry.turns)
    ids.discard("")
    return frozenset(ids)


def check_entry(entry: Entry) -> None:
    """Refuse gaps inside an entry and rows of another partition. Raises Rejected."""
    last: dict[str, int] = {}
    for record in entry.records:
        if not record.turn_id:
            if record.sequence != 0:
                raise Rejected("an event outside a turn has sequence 0")
            continue
        before = last.get(record.turn_id)
        if record.sequence < 1 or (before is not None and record.sequence != before + 1):
            raise Rejected(f"{record.turn_id}: sequence {record.sequence} does not follow {before or 0}")
        last[record.turn_id] = record.sequence
    for turn in entry.turns:
        if turn.partition != entry.partition:
            raise Rejected(f"{turn.turn_id}: partition {turn.partition} in an entry of {entry.partition}")


def behind(error: BaseException) -> Exception:
    """The error for an entry whose turn had an entry before it that failed with `error`."""
    if isinstance(error, Fenced):
        return Fenced(*error.args)
    if isinstance(error, JournalUnavailable):
        return JournalUnavailable(*error.args)
    return Rejected(f"an earlier entry of the turn failed: {type(error).__name__}")
