"""Arithmetic in words and signs, cut into tokens: numbers in digits, signs, and a few words for phrases."""

import re

_UNITS = [
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
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: value for value, word in enumerate(_UNITS)} | {
    word: 10 * (index + 2) for index, word in enumerate(_TENS)
}

_PHRASES = (
    (r"\*\*|\^", "**"),
    (r"(?:raised )?to the power(?: of)?", "@**"),
    (r"\bdivided by\b", "@/"),
    (r"÷", "/"),
    (r"\bmultiplied (?:by|with)\b|\btimes\b", "@*"),
    (r"\u00d7|·", "*"),
    (r"\bplus\b", "@+"),
    (r"\bminus\b", "@-"),
    (r"\u2212", "-"),
    (r"\bmodulo\b|\bmod\b", "mod"),
    (r"(?<=[\d\s)])x(?=[\d\s(])", "*"),
    (r"²", " squared"),
    (r"³", " cubed"),
    (r"\bopen (?:parenthes[ie]s|bracket|paren)\b", "("),
    (r"\bclose (?:parenthes[ie]s|bracket|paren)\b", ")"),
    (r"\bper ?cent of\b|(?<=\d)\s?% of\b", "percentof"),
    (r"\b(?:the )?square root of\b|\bsqrt of\b", "root"),
    (r"\b(?:the )?(?:sum|total) of\b", "sumof"),
    (r"\b(?:the )?product of\b", "productof"),
    (r"\b(?:the )?quotient of\b", "quotientof"),
    (r"\bhalf of\b", "halfof"),
    (r"\btwice\b", "twice"),
    (r"\bto (?:it|that|this|the (?:result|sum|total|product|answer))\b", "toit"),
    (r"\bfrom (?:it|that|this|the (?:result|sum|total|product|answer))\b", "fromit"),
    (r"\b(?:it|that|this|the (?:result|sum|total|product|answer|whole thing|lot))\b", "it"),
    (r"(?<![\d)] )\bnegative (?=\d)", "-"),
)
_REPLACE = tuple((re.compile(pattern), f" {word} ") for pattern, word in _PHRASES)
_PLAIN = r"\d+\.\d+|\.\d+|\d+"
_TWO_WORDS = rf"(?:{'|'.join(_TENS)})[ -](?:{'|'.join(_UNITS[1:10])})(?![a-z-])"
_REST = rf"(?P<word>{_TWO_WORDS}|(?>[a-z]+)(?!-\w))|(?P<sign>@\*\*|@[-+*/]|\*\*|//|[-+*/(),;])"
_IN_CALL = re.compile(rf"\s*(?:(?P<number>(?:{_PLAIN})(?![\w.]))|{_REST})")
_TOKEN = re.compile(
    rf"\s*(?:(?P<number>(?:(?P<grouped>\d{{1,3}}(?:,\d{{3}})+)(?:\.\d+)?(?![\d,])|{_PLAIN})(?![\w.]))|{_REST})"
)
CALLS = {"sqrt": 1, "abs": 1, "floor": 1, "ceil": 1, "round": 2, "min": 50, "max": 50}
"""The functions, with the most arguments that each takes."""


class NotArithmetic(Exception):
    """The text is no plain arithmetic, or could be read in two ways."""


def tokens_of(body: str) -> list[str]:
    """A spoken sign starts with "@", a number with thousands separators with ",": neither may stand everywhere."""
    for pattern, word in _REPLACE:
        body = pattern.sub(word, body)
    tokens: list[str] = []
    position, end = 0, len(body.rstrip())
    calls: list[bool] = []  # of each open parenthesis: whether commas in it separate arguments
    while position < end:
        within = bool(calls) and calls[-1]
        match = (_IN_CALL if within else _TOKEN).match(body, position)
        if match is None:
            raise NotArithmetic
        position = match.end()
        if match["number"]:
            grouped = not within and match["grouped"]
            tokens.append(("," if grouped else "") + _plain_number(match["number"]))
        elif match["word"]:
            tokens.append(_plain_word(match["word"]))
        else:
            sign = match["sign"]
            if sign == "(":
                calls.append(within or (bool(tokens) and tokens[-1] in CALLS))
            elif sign == ")" and calls:
                calls.pop()
            tokens.append(sign)
    return tokens


def _plain_number(text: str) -> str:
    text = text.replace(",", "")
    if len(text) > 1 and text[0] == "0" and text[1] != ".":
        raise NotArithmetic
    return "0" + text if text[0] == "." else text


def _plain_word(word: str) -> str:
    first, *second = re.split("[ -]", word)
    if second:
        return str(_WORDS[first] + _WORDS[second[0]])
    return str(_WORDS[word]) if word in _WORDS else word
