"""How much work a JSON Schema makes. Its references can make a few lines of it take years to check."""

from typing import Any, Final

from kfm_server.canonical import MAX_DEPTH

MAX_WORK: Final = 10_000
"""Most subschemas that are held against one path through a value, each reference followed."""

_HERE: Final = ("not", "if", "then", "else")
_ALL_HERE: Final = ("allOf", "anyOf", "oneOf")
_OF_OBJECTS: Final = ("additionalProperties", "propertyNames", "unevaluatedProperties")
_OF_LISTS: Final = ("items", "contains", "unevaluatedItems")


class TooMuchWork(ValueError):
    """The schema would take too long to check, or its references cannot be followed. The message is for its author."""


def check_work(schema: Any, depth: int) -> None:
    """Require that checking values nested `depth` deep is little work. Raises TooMuchWork."""
    _Count(schema).of(schema, depth, 0)


def depth_of(value: Any) -> int:
    """How deep a JSON value is nested: 0 for a plain one."""
    depth, level = 0, [value]
    while level := [v for v in level if isinstance(v, dict | list) and v]:
        depth += 1
        level = [x for v in level for x in (v.values() if isinstance(v, dict) else v)]
    return depth


class _Count:
    def __init__(self, document: Any) -> None:
        self._document = document
        self._known: dict[tuple[int, int], int] = {}

    def of(self, schema: Any, depth: int, refs: int) -> int:
        """Subschemas that a value nested so deep meets. `refs`: references followed at this place of the value."""
        if not isinstance(schema, dict):
            return 1
        key = (id(schema), depth)
        if key in self._known:
            return self._known[key]
        self._known[key] = 1  # a reference back to here, at the same place, says nothing new
        work = 1
        if "$dynamicRef" in schema:
            raise TooMuchWork("$dynamicRef is not supported")
        if "$ref" in schema:
            if refs > MAX_DEPTH:
                raise TooMuchWork(f"more than {MAX_DEPTH} references follow each other")
            work += self.of(self._target(schema["$ref"]), depth, refs + 1)
        here = [schema[name] for name in _HERE if name in schema]
        here += [item for name in _ALL_HERE for item in schema.get(name, ())]
        here += schema.get("dependentSchemas", {}).values()
        work += sum(self.of(item, depth, refs) for item in here)
        if depth:
            objects = [schema[name] for name in _OF_OBJECTS if name in schema]
            objects += schema.get("patternProperties", {}).values()
            lists = [schema[name] for name in _OF_LISTS if name in schema]
            of_object = sum(self.of(item, depth - 1, 0) for item in objects)
            of_list = sum(self.of(item, depth - 1, 0) for item in lists)
            # One member of a value meets one of these at most.
            named = [self.of(item, depth - 1, 0) for item in schema.get("properties", {}).values()]
            placed = [self.of(item, depth - 1, 0) for item in schema.get("prefixItems", ())]
            work += max(of_object + max(named, default=0), of_list + max(placed, default=0))
        if work > MAX_WORK:
            raise TooMuchWork(f"its references multiply to more than {MAX_WORK} checks of one place")
        self._known[key] = work
        return work

    def _target(self, reference: str) -> Any:
        found = self._document
        if reference != "#" and not reference.startswith("#/"):
            raise TooMuchWork(f"the reference {reference[:80]!r} is no JSON pointer within the schema")
        try:
            for token in reference.split("/")[1:]:
                name = token.replace("~1", "/").replace("~0", "~")
                found = found[int(name)] if isinstance(found, list) else found[name]
        except (LookupError, TypeError, ValueError):
            raise TooMuchWork(f"the reference {reference[:80]!r} names nothing in the schema") from None
        return found
