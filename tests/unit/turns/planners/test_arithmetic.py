"""A sum is read as it is meant, or not at all: checked against the value of the tree that it was written from."""

from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.tools import ToolError
from kfm_server.tools.calculator import evaluate
from kfm_server.tools.registry import build_registry
from kfm_server.turns.planners import Planned, Refused, plan
from kfm_server.turns.planners.arithmetic import read_arithmetic

pytestmark = pytest.mark.requirement("R3")

_TOOLS = build_registry().catalogue
_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "**": 4, "number": 9, "call": 9}
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS = (
    *(
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
    ),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)


@dataclass(frozen=True)
class _Tree:
    """What is meant. `value` is None where it has none (a division by zero)."""

    kind: str
    name: str
    parts: tuple["_Tree", ...]
    value: Fraction | None


def _number(value: Fraction) -> _Tree:
    return _Tree("number", "", (), value)


def _binary(sign: str, left: _Tree, right: _Tree) -> _Tree:
    value = None
    if left.value is not None and right.value is not None and not (sign == "/" and right.value == 0):
        a, b = left.value, right.value
        value = {"+": lambda: a + b, "-": lambda: a - b, "*": lambda: a * b, "/": lambda: a / b}[sign]()
    return _Tree(sign, "", (left, right), value)


def _power(base: _Tree, exponent: int) -> _Tree:
    value = None if base.value is None else base.value**exponent
    return _Tree("**", "", (base, _number(Fraction(exponent))), value)


def _minus(of: _Tree) -> _Tree:
    return _Tree("neg", "", (of,), None if of.value is None else -of.value)


def _call(name: str, arguments: list[_Tree]) -> _Tree:
    values = [argument.value for argument in arguments if argument.value is not None]
    whole = len(values) == len(arguments)
    value = (min if name == "min" else max)(values) if whole else None
    return _Tree("call", name, tuple(arguments), value)


def _inner(trees: st.SearchStrategy[_Tree]) -> st.SearchStrategy[_Tree]:
    return (
        st.builds(_binary, st.sampled_from("+-*/"), trees, trees)
        | st.builds(_power, trees, st.integers(0, 3))
        | st.builds(_minus, trees)
        | st.builds(_call, st.sampled_from(("min", "max")), st.lists(trees, min_size=1, max_size=3))
    )


_NUMBERS = st.integers(0, 20) | st.integers(21, 99) | st.integers(100, 3_000_000)
_TREES = st.recursive(_NUMBERS.map(lambda value: _number(Fraction(value))), _inner, max_leaves=7)


def _spelled(value: int) -> str:
    if value < 20:
        return _UNITS[value]
    ten = _TENS[value // 10 - 2]
    return ten if value % 10 == 0 else f"{ten}-{_UNITS[value % 10]}"


class _Writer:
    """Writes a tree as a person might, with the parentheses that it needs and some that it does not."""

    def __init__(self, data: st.DataObject) -> None:
        self.data = data
        self.calls = 0

    def pick(self, *choices: str) -> str:
        return self.data.draw(st.sampled_from(choices))

    def write(self, tree: _Tree, level: int = 0) -> str:
        text = self.bare(tree)
        needed = _LEVEL[tree.kind] < level
        return f"({text})" if needed or self.pick("", "", "", "(") else text

    def bare(self, tree: _Tree) -> str:
        self.calls += tree.kind == "call"
        try:
            return self.kinds(tree)
        finally:
            self.calls -= tree.kind == "call"

    def kinds(self, tree: _Tree) -> str:
        if tree.kind == "number":
            assert tree.value is not None
            value = int(tree.value)
            word = _spelled(value) if value < 100 else str(value) if self.calls else f"{value:,}"
            return self.pick(str(value), str(value), word)
        if tree.kind == "neg":
            return self.pick("-", "- ", "minus ") + self.write(tree.parts[0], 4)
        if tree.kind == "call":
            comma = self.pick(",", ", ")
            return f"{tree.name}({comma.join(self.write(part) for part in tree.parts)})"
        level = _LEVEL[tree.kind]
        if tree.kind == "**":
            base, exponent = self.write(tree.parts[0], 5), self.write(tree.parts[1], 5)
            shorter = {"2": " squared", "3": " cubed"}.get(exponent)
            sign = self.pick("**", " ** ", "^", " to the power of ")
            return base + shorter if shorter and self.pick("", "word") else base + sign + exponent
        words = {"+": " plus ", "-": " minus ", "*": " times ", "/": " divided by "}[tree.kind]
        sign = self.pick(tree.kind, f" {tree.kind} ", words)
        return self.write(tree.parts[0], level) + sign + self.write(tree.parts[1], level + 1)


def _same(expression: str, tree: _Tree) -> bool:
    try:
        value, exact = evaluate(expression)
    except ToolError:
        return True  # no answer is no wrong answer
    return exact and value == tree.value


@settings(max_examples=600)
@given(_TREES, st.data())
def test_a_sum_however_it_is_written_has_the_value_that_was_meant_or_is_not_read(
    tree: _Tree, data: st.DataObject
) -> None:
    text = _Writer(data).write(tree)
    read = read_arithmetic(f"What is {text}?")
    assert read is None or _same(read, tree), (text, read)


@settings(max_examples=300)
@given(_TREES, st.data())
def test_a_sum_in_signs_with_spaces_about_them_is_read(tree: _Tree, data: st.DataObject) -> None:
    def signs(part: _Tree, level: int = 0) -> str:
        if part.kind == "number":
            assert part.value is not None
            return str(part.value)
        if part.kind == "neg":
            return f"(-{signs(part.parts[0], 9)})"
        if part.kind == "call":
            return f"{part.name}({', '.join(signs(inner) for inner in part.parts)})"
        own = _LEVEL[part.kind]
        left = signs(part.parts[0], own + (part.kind == "**"))
        text = f"{left} {part.kind} {signs(part.parts[1], own + 1)}"
        return f"({text})" if own < level else text

    text = signs(tree)
    read = read_arithmetic(text)
    if not any(sign in text for sign in (" + ", " - ", " * ", " / ", "**", "m")):
        assert read is None  # nothing to compute
    else:
        assert read is not None and _same(read, tree), (text, read)


@settings(max_examples=300)
@given(_TREES, st.sampled_from(["minus ", "- ", "plus ", "times ", "* ", "/ ", ""]), _TREES, st.data())
def test_a_second_sum_behind_a_comma_is_never_computed_for_itself(
    first: _Tree, sign: str, second: _Tree, data: st.DataObject
) -> None:
    writer = _Writer(data)
    link = writer.pick(", ", " then ", " and ", "; ", " and then ", ". ")
    planned = plan(
        (types.Part(text=f"compute {writer.write(first)}{link}{sign}{writer.write(second)}"),), _TOOLS
    )
    assert isinstance(planned, Refused) or len(planned.steps) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("what is (-2) ** 2?", 4),
        ("(-3)^2 + 1", 10),
        ("2 * (-3) ** 2", 18),
        ("5 - (-2) ** 2", 1),
        ("(-5) squared", 25),
        ("what is max(100,200)?", 200),
        ("max(1,200)", 200),
        ("max(3,100)", 100),
        ("min(100,200,300)", 100),
        ("1,000 + 2,345", 3345),
        ("-2 + 3", 1),
        ("2 - -3", 5),
        ("twenty one plus one", 22),
        ("raise -2 to the power of 2", 4),
        ("5 plus 3, times 2", 16),
        ("compute 5 + 3 then - 2", 6),
        ("3 squared plus 4 squared", 25),
        ("take 5, add 3, multiply by 2", 16),
        ("17 mod 5", 2),
        ("100 minus 20% of 50", 90),
    ],
)
def test_what_is_clear_is_computed(text: str, value: int) -> None:
    read = read_arithmetic(text)
    assert read is not None
    assert evaluate(read) == (value, True)


def test_the_root_of_a_negative_number_is_an_error_not_a_number() -> None:
    read = read_arithmetic("(-4) ** 0.5")
    assert read is not None
    with pytest.raises(ToolError, match="no real"):
        evaluate(read)


@pytest.mark.parametrize(
    "text",
    [
        "what is 5 plus 3, minus 2 times 4?", "what is 2 + 3, minus 1 * 4?", "compute 5 + 3 then - 2 * 4",
        "what is 5, -3", "what is 5 + 3, - 2", "-2 ** 2", "-2 squared", "2 ^ 3 ^ 2",
        "2 to the power of 3 to the power of 2", "2 to the power of 3 squared", "8 minus 2 to the power of 3",
        "max(1,000, 5)", "max(100,200) + 1,000", "1,234 + max(1,234)", "max(1,200, 300)", "sqrt(1,600)", "abs(1,000)", "max((1,200), 3)", "the sum of 1,200 and 5",
        "add 1,234 and 5", "what is 3 + 5!", "what is 10 % 200", "7 % 2", "-7 mod 3", "7 // -2", "2 + 7 mod 4",
        "2 * 7 mod 4", "half of 10 squared", "the square root of 16 squared", "add 3 and 4 squared", "5 % - 3",
        "20 five + 1", "the product of 2 and 3 and 4 + 5", "what is 2 + 2 and 3 * 3?", "add 3 and 4 and multiply 5 by 6",
        "compute 6 * 7, then add 5 and 3", "compute 6 * 7, then subtract 5 from 20", "compute 6 * 7, subtract it from 100",
        "the sum of 2 and 3 times 4", "2 + 3 * 4, divided by 2", "5 plus 3 divided by 4", "1 000 + 5", "1,50 + 2",
        "2 + 1,50", "what is 2 + 2 = 5?", "3 1/2 + 1", "2pi + 1", "$5 + $3", "1e5 + 3", "5 + 3 or 4", "5 to 3 + 2",
        "minus 20 percent of 150", "20% off 150", "ten less than 5 + 3", "5 more than 3 + 2", "0.1.2 + 3", "1.000,5 + 1",
        "10 divided by 4 to the nearest integer", "2 + 2 in binary", "2 + 2 in words", "7:30 + 1", "2 + two hundred",
        "minus 2 + 3 squared is what, times 2", "5 + + 3", "5 - 3 -", "* 5 + 3", "(2 + 3", "2 + 3)", "((2) 3)",
        "(2)(3)", "2(3)", "5!", "5! + 1", "|-5| + 1", "5 ± 3", "5 + 3i", "2 + 3; 4", "2 + 3\n- 4 * 5", "2 + 3. - 4 * 5",
        "what is 2 + 3 and what is minus 4 * 5", "compute 2 + 3, then compute * 4", "what is 07 + 1", "0x10 + 1",
        "10 - 4 then (3 + 2)", "compute 10 - 4 and - 3 * 2", "what is 10 - 4, - 3 * 2", "what is 10 - 4 & - 3 * 2",
    ],
)  # fmt: skip
def test_what_may_be_meant_in_two_ways_is_refused_with_a_reason(text: str) -> None:
    made = plan((types.Part(text=text),), _TOOLS)
    assert isinstance(made, Refused), made
    assert "I can compute arithmetic" in made.message


def test_two_sums_each_asked_for_are_two_sums() -> None:
    made = plan((types.Part(text="What is 2 + 2, and what is 3 * 3?"),), _TOOLS)
    assert isinstance(made, Planned) and len(made.steps) == 2
