"""Prompt templates: `{{name}}` stands for a variable, and there is nothing else.

No conditions, loops or expressions: a pack may come from a stranger, and a template language is a program.
"""

import re
from collections.abc import Mapping

from kfm_server.personalities.problems import PackInvalid, Problem

MOST_CHARACTERS = 65_536
"""Longest system prompt, rendered."""
_VARIABLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")


def render(file: str, template: str, variables: Mapping[str, str]) -> str:
    """The text with its variables put in, once: what a value holds is not looked at. Raises PackInvalid."""
    problems: list[Problem] = []

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in variables:
            return variables[name]
        line = template.count("\n", 0, match.start()) + 1
        known = ", ".join(sorted(variables))
        problems.append(Problem(file, line, f"there is no variable {name!r}; there are {known}"))
        return ""

    text = _VARIABLE.sub(value, template).strip()
    if len(text) > MOST_CHARACTERS:
        problems.append(Problem(file, 0, f"has more than {MOST_CHARACTERS} characters when rendered"))
    if problems:
        raise PackInvalid(problems)
    return text
