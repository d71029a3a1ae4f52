"""Prompt templates: `{{name}}` stands for a variable, and there is nothing else.

No conditions, loops or expressions: a pack may come from a stranger, and a template language is a program.
"""

import re
from collections.abc import Mapping

from kfm_server.personalities.problems import PackInvalid, Problem

MOST_CHARACTERS = 65_536
"""Longest system prompt, rendered; the file may be twice as long."""
_VARIABLE = re.compile(r"\{\{([^{}]*)\}\}")


def names(template: str, variable: str) -> bool:
    """It has a place for the variable."""
    return any(match[1].strip() == variable for match in _VARIABLE.finditer(template))


def render(file: str, template: str, variables: Mapping[str, str]) -> str:
    """The text with its variables put in, once: what a value holds is not looked at. Raises PackInvalid."""
    problems: list[Problem] = []
    too_long = Problem(file, 0, f"has more than {MOST_CHARACTERS} characters when rendered")
    room = MOST_CHARACTERS
    if len(template) > 2 * MOST_CHARACTERS:
        raise PackInvalid([too_long])

    def value(match: re.Match[str]) -> str:
        nonlocal room
        name = match[1].strip()
        if name in variables:
            room -= len(variables[name])
            return variables[name] if room >= 0 else ""
        line = template.count("\n", 0, match.start()) + 1
        known = ", ".join(sorted(variables))
        problems.append(Problem(file, line, f"there is no variable {name!r}; there are {known}"))
        return ""

    text = _VARIABLE.sub(value, template).strip()
    if room < 0 or len(text) > MOST_CHARACTERS:
        problems.append(too_long)
    if problems:
        raise PackInvalid(problems)
    return text
