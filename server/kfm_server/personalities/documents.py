"""YAML files of a pack as messages of the schema: whatever is wrong is told with its line.

The form is the message's: unknown keys, other types and broken validation rules are problems. Anchors and aliases are
not taken: a few of them can stand for gigabytes.
"""

import difflib
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, TypeVar, cast

import protovalidate
import yaml
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from kfm_server.personalities.problems import MOST_PROBLEMS, PackInvalid, Problem

M = TypeVar("M", bound=Message)
Path = tuple[str | int, ...]
MOST_BYTES = 128 * 1024
"""Largest YAML file."""
MOST_DEPTH = 32
"""Deepest nesting in one."""
_validator = protovalidate.Validator()
_FREE = ("google.protobuf.Struct", "google.protobuf.Value")
_SCALARS = {
    FieldDescriptor.CPPTYPE_STRING: (str, "a text"),
    FieldDescriptor.CPPTYPE_BOOL: (bool, "true or false"),
    FieldDescriptor.CPPTYPE_INT32: (int, "a whole number"),
    FieldDescriptor.CPPTYPE_UINT32: (int, "a whole number"),
    FieldDescriptor.CPPTYPE_DOUBLE: ((int, float), "a number"),
}

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: range(-(2**31), 2**31),
    FieldDescriptor.CPPTYPE_UINT32: range(2**32),
}


class Document:
    """A YAML file's value, and the line of each place in it."""

    def __init__(self, file: str, text: str) -> None:
        """Read it. Raises PackInvalid with the line at which it is no YAML of the plain kind."""
        self.file = file
        self.lines: dict[Path, int] = {(): 1}
        if len(text.encode()) > MOST_BYTES:
            raise PackInvalid([Problem(file, 0, f"has more than {MOST_BYTES} bytes")])
        try:
            loader = _Loader(text)
            root = loader.get_single_node()
            self.value: Any = None if root is None else self._value(loader, root, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            why = error.problem or error.context or "is no YAML"
            raise PackInvalid([Problem(file, mark.line + 1 if mark else 0, why)]) from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            why = f"holds the character U+{ord(text[error.position]):04X}, which YAML does not take"
            raise PackInvalid([Problem(file, line, why)]) from None

    def line(self, path: Path) -> int:
        """The line of a place, or of the nearest one around it."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]

    def problem(self, path: Path, text: str) -> Problem:
        """What is wrong at a place, which the sentence begins with."""
        at = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        return Problem(self.file, self.line(path), f"{at}: {text}" if at else text)

    def _value(self, loader: "_Loader", node: yaml.Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = key_node.value
                if not isinstance(key_node, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a key is no text", problem_mark=key_node.start_mark)
                if key in found:
                    raise yaml.MarkedYAMLError(
                        problem=f"{key!r} stands twice", problem_mark=key_node.start_mark
                    )
                _plain(key, key_node)
                self.lines[(*path, key)] = key_node.start_mark.line + 1
                found[key] = self._value(loader, value_node, (*path, key))
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, child, (*path, index)) for index, child in enumerate(node.value)]
        try:
            return _plain(loader.construct_object(node), node)
        except (
            ValueError,
            LookupError,
            AttributeError,
        ):  # PyYAML's own, at a tag that its value does not fit
            why = f"is no value of the tag {node.tag}"
            raise yaml.MarkedYAMLError(problem=why, problem_mark=node.start_mark) from None


def _plain(value: Any, node: yaml.Node) -> Any:
    """A scalar that JSON has, too. Raises MarkedYAMLError."""
    why = ""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            why = "holds half of a character"
    elif isinstance(value, int):
        why = "" if abs(value) < 2**63 else "is a number of more than 64 bits"
    elif isinstance(value, float):
        why = "" if math.isfinite(value) else "is no number that JSON has"
    elif value is not None:
        why = "is neither a text nor a number, true or false"
    if why:
        raise yaml.MarkedYAMLError(problem=why, problem_mark=node.start_mark)
    return value


class _Loader(yaml.SafeLoader):
    """YAML without anchors, bounded in depth, and with dates as the texts that they are."""

    depth = 0

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, expression) for tag, expression in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent) or getattr(self.peek_event(), "anchor", None):
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not taken", problem_mark=self.peek_event().start_mark
            )
        if self.depth > MOST_DEPTH:
            raise yaml.MarkedYAMLError(
                problem=f"nests deeper than {MOST_DEPTH}", problem_mark=self.peek_event().start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read_message(kind: type[M], document: Document) -> M:
    """The document as a message. Raises PackInvalid with all that is wrong."""
    value = document.value if document.value is not None else {}
    misfits = _misfits(cast("Descriptor", kind.DESCRIPTOR), value, ())
    problems = [document.problem(path, why) for path, why in islice(misfits, MOST_PROBLEMS)]
    if problems:
        raise PackInvalid(problems)
    message = kind()
    try:
        json_format.ParseDict(value, message)
    except json_format.ParseError as error:
        raise PackInvalid([Problem(document.file, 0, str(error)[:500])]) from None
    broken = _validator.collect_violations(message)
    if broken:
        raise PackInvalid([_explained(document, v.proto) for v in broken])
    return message


def _misfits(kind: Descriptor, value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if not isinstance(value, dict):
        yield path, "must be a mapping"
        return
    for oneof in kind.oneofs:
        given = [field.name for field in oneof.fields if field.name in value]
        if len(given) > 1:
            yield (*path, given[1]), f"stands beside {given[0]}, and only one of them may be there"
    for key, inner in value.items():
        here = (*path, key)
        field = kind.fields_by_name.get(key)
        if field is None:
            near = difflib.get_close_matches(key, list(kind.fields_by_name), 1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(kind.fields_by_name)}"
            yield here, f"unknown key; {meant}"
        elif inner is None and not (field.message_type and field.message_type.full_name == _FREE[1]):
            yield here, "has no value"
        else:
            yield from _field_misfits(field, inner, here)


def _field_misfits(field: FieldDescriptor, value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        if not isinstance(value, dict):
            yield path, "must be a mapping"
            return
        for key, inner in value.items():
            yield from _item_misfits(message.fields_by_name["value"], inner, (*path, key))
    elif field.is_repeated:
        if not isinstance(value, list):
            yield path, "must be a list"
            return
        for index, inner in enumerate(value):
            yield from _item_misfits(field, inner, (*path, index))
    else:
        yield from _item_misfits(field, value, path)


def _item_misfits(field: FieldDescriptor, value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    message = field.message_type
    if message is None:
        wanted, told = _SCALARS[field.cpp_type]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            yield path, f"must be {told}"
        elif wanted is int and value not in _RANGES[field.cpp_type]:
            yield path, "is no number of its range"
    elif message.full_name not in _FREE:
        yield from _misfits(message, value, path)
    elif message.full_name == _FREE[0] and not isinstance(value, dict):
        yield path, "must be a mapping"


def _explained(document: Document, violation: protovalidate.ViolationPb) -> Problem:
    path = _path(violation)
    absent = path not in document.lines and "oneof" not in violation.message
    return document.problem(path, "is missing" if absent else violation.message)


def _path(violation: protovalidate.ViolationPb) -> Path:
    path: list[str | int] = []
    for element in violation.field.elements if violation.field else ():
        path.append(str(element.field_name))
        subscript = element.subscript
        if subscript is not None:
            path.append(subscript.value)
    return tuple(path)


def text_of(file: str, content: bytes) -> str:
    """A text file of a pack. Raises PackInvalid with the line that is no UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise PackInvalid([Problem(file, line, "is not UTF-8")]) from None
