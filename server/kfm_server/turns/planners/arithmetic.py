"""Arithmetic in words and signs, read into an expression for the calculator. All of it is understood, or nothing."""

import re
from dataclasses import dataclass

from kfm_server.turns.planners.tokens import CALLS, NotArithmetic, tokens_of

_LEAD = re.compile(
    r"(?:(?:hey|hi|hello|ok|okay|so|now|kfm|please|kindly|quick question|quickly|just|(?:can|could|would|will) you|"
    r"i(?:'d| would) like(?: you)? to(?: know)?|i (?:want|need)(?: you)? to(?: know)?|do you know|"
    r"what(?:'s|s| is| are| does| do| will)|how much (?:is|are|does|do)|calculate|compute|evaluate|work out|figure out|"
    r"solve|tell me|give me|show me|find(?: out)?|(?:when|if) (?:i|you|we)|(?:you|i|we|do you|do i|do we) get|"
    r"the (?:result|value|answer|total) (?:of|to|for)|the following|this|result of)(?:[\s,:]+|$))+"
)
_TAIL = re.compile(
    r"(?:[\s,?!.]|=|\bequals?(?: to)?\b|\bcome to\b|\bmake\b|\bgive\b|\bplease\b|\bfor me\b|\bthanks\b|\bthank you\b)*+$"
)
_DATE_OR_PHONE = re.compile(
    r"\d{1,4}/\d{1,2}/\d{2,4}|\d{4}-\d{1,2}-\d{1,2}|\d{1,2}-\d{1,2}-\d{4}|(?<!\d)\d{3}-\d{4}(?!\d)|\d{3}-\d{3}-\d{4}"
    r"|\b\d{1,2}-\d{1,2}-\d{2}\b|\b0[xob]|^24/7$|^9/11$|\bplus[ -]minus\b|\+-"
)
_FACTORIAL_OR_BULLET = re.compile(r"[\d)]\s*!|\n\s*[-+*]")
_MIXED = re.compile(r"(?=.*\b(?:min|max|round)\b)(?=.*\d,\d{3}(?!\d)).*\d\s*,\s")
"""Some commas with spaces and some without: max(1,000, 5) may have two arguments or three."""
_CALL = re.compile(r"\b(?:min|max|round)\s*\((?:[^()]|\([^()]*\))*\)", re.IGNORECASE)
_GROUPED = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")
_LEVELS = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "**": 3}
_THEN = frozenset(("then", "next", "finally", "now"))


_ASKED = re.compile(
    r"(?:(?:also|please|then|now|kfm|(?:can|could|would|will) you)[\s,]+)*"
    r"(?:what(?:'s|s| is)|how much is|calculate|compute|evaluate|work out|tell me what|solve)[\s:]+(?=\w|\()"
    r"(?!plus\b|minus\b|times\b|divided\b|multiplied\b|add\b|subtract\b|multiply\b|divide\b|mod)"
)


def commas_in_two_ways(text: str) -> bool:
    """Whether 1,234 is one number in a place where it can be nothing else, and may be one or two in a function's call."""
    inside = [match.span() for match in _CALL.finditer(text)]
    numbers = [match.start() for match in _GROUPED.finditer(text)]
    within = [any(start < at < end for start, end in inside) for at in numbers]
    return any(within) and not all(within)


def asks_anew(text: str) -> bool:
    """Whether a clause behind others asks for a sum of its own: what only has numbers may go on with the one before."""
    return _ASKED.match(" ".join(text.lower().replace("\u2019", "'").split())) is not None


@dataclass(frozen=True, slots=True)
class _Value:
    """A part of the expression. level: how tightly its outermost operator binds, 4 if none, 0 for a leading minus."""

    text: str
    level: int = 4
    operators: int = 0

    def inside(self, level: int) -> str:
        return self.text if self.level >= level else f"({self.text})"


def _join(left: _Value, sign: str, right: _Value) -> _Value:
    level = _LEVELS[sign]
    if sign == "**":
        text = f"{left.inside(4)} ** {right.inside(3)}"
    else:
        text = f"{left.inside(level)} {sign} {right.inside(level + 1)}"
    return _Value(text, level, left.operators + right.operators + 1)


def read_arithmetic(text: str) -> str | None:
    """The expression that a text asks for, with explicit parentheses; None unless all of it is plain arithmetic.

    Anything that people read in two ways is None too: "17 and 5", "5% more", "7 % 2", -2 ** 2, dates, units, 2(3 + 4).
    """
    body = " ".join(text.lower().replace("\u2019", "'").split())
    body = _LEAD.sub("", body, count=1) if _LEAD.match(body) else body
    body = _TAIL.sub("", body)
    if not body or len(body) > 900 or "@" in body or _DATE_OR_PHONE.search(body):
        return None
    if _FACTORIAL_OR_BULLET.search(text) or _MIXED.match(body) or commas_in_two_ways(body):
        return None
    try:
        value = _Reader(tokens_of(body)).message()
    except (NotArithmetic, RecursionError):
        return None
    return value.text if value.operators and len(value.text) <= 1000 else None


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = [token.lstrip("@,") or token for token in tokens]
        self.grouped = {index for index, token in enumerate(tokens) if len(token) > 1 and token[0] == ","}
        self.spoken = {index for index, token in enumerate(tokens) if token[0] == "@"}
        self.at = 0
        self.depth = 0

    def peek(self, ahead: int = 0) -> str:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.peek()
        if token not in wanted or not token:
            raise NotArithmetic
        self.at += 1
        return token

    def skip(self, *optional: str) -> bool:
        if self.peek() and self.peek() in optional:
            self.at += 1
            return True
        return False

    def message(self) -> _Value:
        """A command or an expression, then what is to be done with its result, one after the other."""
        commanded = self.peek() in _COMMANDS
        value = self.command() if commanded else self.expression()
        if self.peek() and not commanded and value.operators > 1 and self.peek() != ")":
            raise NotArithmetic  # "2 + 3 * 4, divided by 2": of what?
        while self.peek():
            value = self.further(value)
        return value

    def command(self) -> _Value:
        verb = self.take(*_COMMANDS)
        if verb in ("take", "start", "begin"):
            self.skip("with")
            value = self.operand()
            if not self.peek():
                raise NotArithmetic
            return value
        if verb in ("add", "sum"):
            return self.several("+", "and", "to", "+")
        if verb == "multiply":
            return self.several("*", "and", "by", "with")
        first = self.operand()
        if verb == "subtract":
            self.take("from")
            return _join(self.operand(), "-", first)
        if verb == "raise":
            self.take("**")
            return _join(first, "**", self.operand())
        self.take("by")
        return _join(first, "/", self.operand())

    def several(self, sign: str, *links: str) -> _Value:
        start = self.at
        value = self.joined(sign, *links)
        if self.grouped.intersection(range(start, self.at)):
            raise NotArithmetic  # "the sum of 1,200 and 5": of two numbers or of three?
        return value

    def joined(self, sign: str, *links: str) -> _Value:
        value = self.operand()
        listed = self.skip(",")
        if listed:
            value = _join(value, sign, self.operand())
            while self.peek() == "," and self.starts_operand(1):
                self.at += 1
                value = _join(value, sign, self.operand())
            self.skip(",")
            links = ("and",)
        self.take(*links)
        return _join(value, sign, self.operand())

    def starts_operand(self, ahead: int) -> bool:
        token = self.peek(ahead)
        return token[:1].isdigit() or token in ("(", "-")

    def further(self, value: _Value) -> _Value:
        separated = self.skip(",", ";")
        joined = self.skip("and")
        then = False
        while self.skip(*_THEN):
            then = True
            self.skip(",")
        if not (separated or joined or then):
            raise NotArithmetic
        verb = self.peek()
        if verb in ("add", "subtract", "multiply", "divide"):
            self.at += 1
            sign = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/"}[verb]
            if sign in "*/":
                self.skip("it")
                self.take("by")
                return _join(value, sign, self.operand())
            operand = self.operand()
            self.skip("toit" if sign == "+" else "fromit")
            return _join(value, sign, operand)
        if verb in ("double", "halve", "square"):
            self.at += 1
            self.take("it")
            sign = {"double": "*", "halve": "/", "square": "**"}[verb]
            return _join(value, sign, _Value("2"))
        if verb in ("+", "-", "*", "/") and (then or (self.at in self.spoken and not joined)):
            self.at += 1
            return _join(value, verb, self.operand())
        raise NotArithmetic

    def operand(self) -> _Value:
        """One number, a parenthesis, or a phrase that has its own end."""
        self.depth += 1
        if self.depth > 40:
            raise NotArithmetic
        try:
            if self.skip("-"):
                value = self.operand()
                return _Value(f"(-{value.inside(4)})", 4, value.operators)
            return self.phrase() or self.atom()
        finally:
            self.depth -= 1

    def power_word(self, value: _Value) -> _Value:
        word = self.take("squared", "cubed")
        return _join(value, "**", _Value("2" if word == "squared" else "3"))

    def phrase(self) -> _Value | None:
        token = self.peek()
        if token in ("sumof", "productof"):
            self.at += 1
            return self.several("+" if token == "sumof" else "*", "and")
        if token == "quotientof":
            self.at += 1
            first = self.operand()
            self.take("and")
            return _join(first, "/", self.operand())
        if token == "root":
            self.at += 1
            value = self.operand()
            return _Value(f"sqrt({value.text})", 4, value.operators + 1)
        if token in ("halfof", "twice", "double", "triple"):
            self.at += 1
            value = self.operand()
            factor = _Value("3" if token == "triple" else "2")
            return _join(value, "/", factor) if token == "halfof" else _join(factor, "*", value)
        if token[:1].isdigit() and self.peek(1) == "percentof":
            self.at += 2
            share = _join(_Value(token), "/", _Value("100"))
            return _join(share, "*", self.operand())
        return None

    def atom(self) -> _Value:
        token = self.peek()
        self.at += 1
        if token[:1].isdigit() or token == "pi":
            if self.peek()[:1].isdigit() or self.peek() == "(":
                raise NotArithmetic
            return _Value(token)
        if token == "(":
            value = self.bounded()
            self.take(")")
            if self.peek() == "(" or self.peek()[:1].isdigit():
                raise NotArithmetic
            return value if value.level == 4 else _Value(f"({value.text})", 4, value.operators)
        if token in CALLS and self.skip("("):
            arguments = [self.bounded()]
            while self.skip(","):
                arguments.append(self.bounded())
            self.take(")")
            if len(arguments) > CALLS[token]:
                raise NotArithmetic
            inner = ", ".join(argument.text for argument in arguments)
            return _Value(f"{token}({inner})", 4, 1 + sum(argument.operators for argument in arguments))
        raise NotArithmetic

    def bounded(self) -> _Value:
        self.depth += 1
        if self.depth > 40:
            raise NotArithmetic
        try:
            return self.expression()
        finally:
            self.depth -= 1

    def expression(self) -> _Value:
        """Numbers and signs with the usual precedence; a phrase may only stand at the end, where it is clear."""
        parts: list[str] = []
        signs: list[str] = []
        operators = 0
        spoken = False
        while True:
            value = self.signed()
            if signs[-1:] == ["**"] and value.level == 3:
                raise NotArithmetic  # "2 to the power of 3 squared"
            parts.append(value.inside(4))
            operators += value.operators
            sign = "%" if self.peek() == "mod" else self.peek()
            if sign not in _LEVELS:
                break
            spoken |= self.at in self.spoken
            self.at += 1
            if spoken and any(_LEVELS[sign] > _LEVELS[earlier] for earlier in signs):
                raise NotArithmetic  # "17 plus 5 times 3": said aloud, it may mean either
            if sign in ("%", "//") and self.peek() == "-":
                raise NotArithmetic  # languages round it in different ways
            if sign == "**" and signs[-1:] == ["**"]:
                raise NotArithmetic  # 2 ^ 3 ^ 2: not everybody groups it alike
            parts.append(sign)
            signs.append(sign)
        if not signs:
            return value
        if "%" in signs and len(signs) > 1:
            raise NotArithmetic  # 2 + 7 mod 4: nor this
        return _Value(" ".join(parts), min(_LEVELS[sign] for sign in signs), operators + len(signs))

    def signed(self) -> _Value:
        negative = self.skip("-")
        phrase = self.phrase()
        if phrase is not None:
            if negative or self.peek() in _LEVELS or self.peek() in ("squared", "cubed", "mod"):
                raise NotArithmetic  # "the sum of 2 and 3 times 4"
            return phrase
        value = self.atom()
        if self.peek() in ("squared", "cubed"):
            value = self.power_word(value)
        if negative:
            if value.level < 4 or self.peek() in ("**", "//", "mod"):
                raise NotArithmetic  # -2 ** 2, -7 mod 3
            return _Value(f"-{value.text}", 0, value.operators)
        return value


_COMMANDS = ("add", "sum", "subtract", "multiply", "divide", "raise", "take", "start", "begin")
