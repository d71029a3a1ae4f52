"""Skills: folders with a SKILL.md, as other agents use them. A model is told their names, and reads one when it needs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kfm_server.personalities.documents import Document, text_of
from kfm_server.personalities.files import Files
from kfm_server.personalities.problems import PackInvalid, Problem

READ_SKILL = "read_skill"
"""The tool by which a model reads one; personalities with skills have it."""
SKILL = "SKILL.md"
MOST_CHARACTERS = {"name": 64, "description": 1024}
"""Of what a model is told of a skill from the start."""


@dataclass(frozen=True, slots=True)
class Skill:
    """A skill: its frontmatter's name and description, its text, and the other texts of its folder, by path."""

    name: str
    description: str
    text: str
    files: Mapping[str, str]


def read_skills(files: Files) -> Sequence[Skill]:
    """The skills below `skills/`, by name. Raises PackInvalid."""
    problems: list[Problem] = []
    found: dict[str, Skill] = {}
    for path in files:
        parts = path.split("/")
        if parts[0] != "skills" or parts[-1] != SKILL or len(parts) != 3:
            continue
        try:
            skill = _read(path, files)
        except PackInvalid as error:
            problems += error.problems
            continue
        if skill.name in found:
            problems.append(Problem(path, 0, f"another skill is called {skill.name!r}"))
        found[skill.name] = skill
    if problems:
        raise PackInvalid(problems)
    return [found[name] for name in sorted(found)]


def _read(path: str, files: Files) -> Skill:
    text = text_of(path, files[path]).removeprefix("\ufeff").replace("\r\n", "\n")
    head, front, body = text.removeprefix("---").partition("\n---")
    if not text.startswith("---\n") or not front or body.partition("\n")[0].strip():
        raise PackInvalid(
            [Problem(path, 1, "begins with no frontmatter: `---`, name and description, `---`")]
        )
    document = Document(path, head)  # it begins with the end of the first line: lines count from there
    value = document.value if isinstance(document.value, dict) else {}
    told: dict[str, str] = {}
    problems: list[Problem] = []
    for key, most in MOST_CHARACTERS.items():
        told[key] = " ".join(value[key].split()) if isinstance(value.get(key), str) else ""
        if not told[key]:
            problems.append(document.problem((), f"its frontmatter needs {key}: a text"))
        elif len(told[key]) > most:
            problems.append(document.problem((key,), f"has more than {most} characters"))
    if problems:
        raise PackInvalid(problems)
    folder = path.removesuffix(SKILL)
    texts: dict[str, str] = {}
    for other, content in files.items():
        if other.startswith(folder) and other != path:
            try:
                texts[other.removeprefix(folder)] = content.decode()
            except UnicodeDecodeError:
                continue  # an image, say: nothing that a model reads
    return Skill(told["name"], told["description"], body.strip(), texts)
