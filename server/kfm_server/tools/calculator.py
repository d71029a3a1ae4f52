"""The calculator: exact arithmetic over a small language, with its work bounded before it is done."""

import ast
import math
import re
from collections.abc import Callable
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, Final

from kfm.type.v1 import type_pb2 as types

from kfm_server.ports.tools import ToolCall, ToolError, ToolSpec

MAX_LENGTH: Final = 1000
"""Longest expression, in characters."""
MAX_NODES: Final = 400
MAX_DEPTH: Final = 60
MAX_BITS: Final = 4096
"""Largest numerator or denominator on the way, in bits."""
MAX_RESULT: Final = 10**300
SHOWN_DIGITS: Final = 15
"""Significant digits shown of a result that is not a short decimal."""

_INT_BITS: Final = 63
"""Integers of more are not numbers of JSON as it is kept here."""

Number = int | Fraction

_TOKENS = re.compile(
    r"(?>\s+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?(?![\w.])|[A-Za-z]\w*|\*\*|//|[-+*/%(),])+", re.ASCII
)
_SIGNS = str.maketrans({"\u00d7": "*", "·": "*", "÷": "/", "\u2212": "-", "^": "**"})
_SHOWN = Context(prec=SHOWN_DIGITS)
_DIGITS = (60, 120)
"""An inexact value is computed twice, with so many digits: where the two are shown otherwise, nobody knows it."""
_CONSTANTS = {
    "pi": Decimal(
        "3.14159265358979323846264338327950288419716939937510582097494"
        "459230781640628620899862803482534211706798214808651328230664709"
    ),
    "e": Decimal(
        "2.71828182845904523536028747135266249775724709369995957496696"
        "7627724076630353547594571382178525166427427466391932003059921817"
    ),
}


class _Evaluation:
    """One walk over one tree. `exact` turns false once a value had to be rounded, to `digits` digits."""

    def __init__(self, source: str, variables: dict[str, Number], digits: int) -> None:
        self.source = source
        self.context = Context(prec=digits)
        self.max_bits = MAX_BITS * digits // _DIGITS[0]  # rounded values have more of them
        self.snap = Fraction(1, 10 ** (digits * 2 // 3))
        self.variables = variables
        self.exact = True
        self.nodes = 0

    def walk(self, node: ast.expr, depth: int = 0) -> Number:
        self.nodes += 1
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise ToolError("The expression is too long or too deeply nested.")
        if isinstance(node, ast.Constant):
            return _number(self.source[node.col_offset : node.end_col_offset])
        if isinstance(node, ast.BinOp):
            left = self.walk(node.left, depth + 1)
            right = self.walk(node.right, depth + 1)
            return self.binary(type(node.op), left, right)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self.walk(node.operand, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.Name):
            return self.name(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            arguments = [self.walk(argument, depth + 1) for argument in node.args]
            return self.function(node.func.id, arguments)
        raise ToolError("The expression holds something other than numbers, operators and functions.")

    def name(self, name: str) -> Number:
        if name in self.variables:
            return self.variables[name]
        if name in _CONSTANTS:
            self.exact = False
            return Fraction(self.context.plus(_CONSTANTS[name]))
        raise ToolError(f"Unknown name {name[:40]!r}; there are pi, e and the variables given.")

    def binary(self, operator: type[ast.operator], left: Number, right: Number) -> Number:
        if operator is ast.Pow:
            return self.power(left, right)
        if _bits(left) + _bits(right) > self.max_bits:
            raise ToolError("The numbers become too large.")
        if operator is ast.Add:
            return _plain(left + right)
        if operator is ast.Sub:
            return _plain(left - right)
        if operator is ast.Mult:
            return _plain(left * right)
        if right == 0:
            raise ToolError("Division by zero.")
        if operator is ast.Div:
            return _plain(Fraction(left) / right)
        if operator is ast.FloorDiv:
            return self.whole(Fraction(left) / right, _floor)
        if operator is ast.Mod:
            return _plain(left - right * self.whole(Fraction(left) / right, _floor))
        raise ToolError("Only + - * / // % and ** are known.")

    def power(self, base: Number, exponent: Number) -> Number:
        if base == 0 and exponent < 0:
            raise ToolError("Division by zero.")
        if isinstance(exponent, int):
            if base not in (0, 1, -1) and _bits(base) * abs(exponent) > self.max_bits:
                raise ToolError("The numbers become too large.")
            return _plain(Fraction(base) ** exponent) if exponent < 0 else _plain(base**exponent)
        if base < 0:
            raise ToolError("A negative number has no real power with a broken exponent.")
        if exponent == Fraction(1, 2):
            return self.root(base)
        if base in (0, 1):
            return base
        # log10(base) * exponent bounds the size of what Decimal would compute.
        if abs(exponent) * max(1, _bits(base)) > self.max_bits:
            raise ToolError("The numbers become too large.")
        self.exact = False
        return _plain(Fraction(self.context.power(self.decimal(base), self.decimal(exponent))))

    def decimal(self, value: Number) -> Decimal:
        return self.context.divide(Decimal(value.numerator), Decimal(value.denominator))

    def root(self, value: Number) -> Number:
        if value < 0:
            raise ToolError("A negative number has no real square root.")
        fraction = Fraction(value)
        top, bottom = math.isqrt(fraction.numerator), math.isqrt(fraction.denominator)
        if top * top == fraction.numerator and bottom * bottom == fraction.denominator:
            return _plain(Fraction(top, bottom))
        self.exact = False
        return Fraction(self.context.sqrt(self.decimal(fraction)))

    def whole(self, value: Fraction, rounding: Callable[[Fraction], int]) -> int:
        if not self.exact:
            # What was rounded before may lie a hair beside the whole number that it is.
            nearest = round(value)
            if abs(value - nearest) < self.snap:
                return nearest
        return rounding(value)

    def function(self, name: str, arguments: list[Number]) -> Number:
        count = len(arguments)
        if name in ("min", "max") and count:
            return min(arguments) if name == "min" else max(arguments)
        if count == 1:
            value = arguments[0]
            if name == "sqrt":
                return self.root(value)
            if name == "abs":
                return abs(value)
            if name in _ROUNDINGS:
                return self.whole(Fraction(value), _ROUNDINGS[name])
        if name == "round" and count == 2:
            digits = arguments[1]
            if not isinstance(digits, int) or not 0 <= digits <= 50:
                raise ToolError("round takes 0 to 50 digits.")
            return _plain(Fraction(self.whole(Fraction(arguments[0]) * 10**digits, _nearest), 10**digits))
        known = "sqrt(x), abs(x), min(x, ...), max(x, ...), round(x, digits), floor(x), ceil(x)"
        raise ToolError(f"{name[:40]!r} with {count} arguments is not known; there are {known}.")


def _bits(value: Number) -> int:
    if isinstance(value, int):
        return value.bit_length()
    return value.numerator.bit_length() + value.denominator.bit_length()


def _plain(value: Number) -> Number:
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


def _floor(value: Fraction) -> int:
    return value.__floor__()


def _ceil(value: Fraction) -> int:
    return value.__ceil__()


def _nearest(value: Fraction) -> int:
    """Halves away from zero, as people round."""
    return _floor(value + Fraction(1, 2)) if value >= 0 else _ceil(value - Fraction(1, 2))


_ROUNDINGS: dict[str, Callable[[Fraction], int]] = {"floor": _floor, "ceil": _ceil, "round": _nearest}


def _number(text: str) -> Number:
    if len(text) > 320:
        raise ToolError("A number is too long.")
    try:
        return int(text) if text.isdigit() else _plain(Fraction(text))
    except ValueError:
        raise ToolError(f"{text[:40]!r} is not a number.") from None


def evaluate(expression: str, variables: dict[str, Number] | None = None) -> tuple[Number, bool]:
    """The value of an expression and whether it is exact.

    Integers and fractions are exact; square roots of non-squares, broken powers, pi and e are not.
    Raises ToolError, with a sentence for the user, for anything that is not arithmetic, too large, too small, or
    lost in rounding.
    """
    source = expression.translate(_SIGNS).strip()
    if not source or len(expression) > MAX_LENGTH:
        raise ToolError(f"An expression has 1 to {MAX_LENGTH} characters.")
    if _TOKENS.fullmatch(source) is None:
        raise ToolError("The expression holds something other than numbers, operators and functions.")
    source = " ".join(source.split())
    try:
        tree = ast.parse(source, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ToolError("The expression is not complete arithmetic; check its parentheses.") from None
    known: set[str] = set()
    value, exact = Fraction(0), True
    for digits in _DIGITS:
        evaluation = _Evaluation(source, variables or {}, digits)
        value, exact = evaluation.walk(tree.body), evaluation.exact
        known.add(shown(value, exact)[0])
        if exact:
            break
    if len(known) > 1:
        raise ToolError("The result is lost in rounding: the expression takes away nearly all that it adds.")
    if abs(value) > MAX_RESULT:
        raise ToolError("The result is too large.")
    if value != 0 and abs(value) * MAX_RESULT < 1:
        raise ToolError("The result is too small.")
    return value, exact


def shown(value: Number, exact: bool) -> tuple[str, bool]:
    """A value as people write it, and whether that is all of it: rounded to SHOWN_DIGITS where it has to be."""
    if isinstance(value, int) and exact and abs(value) < 10**50:
        return str(value), True
    rounded = _SHOWN.divide(Decimal(value.numerator), Decimal(value.denominator))
    whole = exact and Fraction(rounded) == value
    if rounded == 0:
        return "0", whole
    if -7 <= rounded.adjusted() < 21:
        text = format(rounded, "f")
        return (text.rstrip("0").rstrip(".") if "." in text else text), whole
    return str(rounded.normalize(_SHOWN)), whole


class Calculator:
    """The tool `calculator`. PURE."""

    spec = ToolSpec(
        name="calculator",
        description=(
            "Computes an arithmetic expression exactly: + - * / // % ** ( ), sqrt, abs, min, max, round, floor, "
            "ceil, pi, e, and named variables."
        ),
        input_schema={
            "type": "object",
            "properties": {
                "expression": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_LENGTH,
                    "description": "For example (17 + 5) * 3 / 2",
                },
                "variables": {
                    "type": "object",
                    "description": "Values of names in the expression.",
                    "maxProperties": 50,
                    "propertyNames": {"pattern": "^[A-Za-z][A-Za-z0-9_]{0,30}$"},
                    "additionalProperties": {"type": "number"},
                },
            },
            "required": ["expression"],
            "additionalProperties": False,
        },
        effect=types.EFFECT_CONTRACT_PURE,
        quick=True,
    )

    async def call(self, arguments: dict[str, Any], call: ToolCall) -> Any:
        """Compute `expression`.

        Answers `expression`; `result`, a number (a double where it is not an integer of 63 bits); `exact`, whether
        `result` as it is written is all of it; `text`; and `digits`, all of a larger integer. Raises ToolError.
        """
        expression: str = arguments["expression"]
        given: dict[str, int | float] = arguments.get("variables", {})
        variables = {
            name: value if isinstance(value, int) else _number(repr(value)) for name, value in given.items()
        }
        value, exact = evaluate(expression, variables)
        text, whole = shown(value, exact)
        large = isinstance(value, int) and value.bit_length() > _INT_BITS
        number = value if isinstance(value, int) and not large else float(text)
        line = " ".join(expression.split())
        if variables:
            line += " with " + ", ".join(f"{name} = {given[name]}" for name in variables)
        answer = {
            "expression": expression,
            "result": number,
            "exact": whole and Fraction(repr(number)) == value,
            "text": f"{line} {'=' if whole else '≈'} {text}",
        }
        return answer | {"digits": text} if large and whole else answer
