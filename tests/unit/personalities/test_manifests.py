"""What is wrong with a pack is told with its file and its line; whatever the bytes, nothing else comes of it."""

import contextlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kfm_server.personalities.documents import MOST_BYTES, MOST_DEPTH
from kfm_server.personalities.pack import MOST_SOURCE, Pack, check, plain
from kfm_server.personalities.problems import MOST_PROBLEMS, PackInvalid
from kfm_server.personalities.prompts import MOST_CHARACTERS, render

pytestmark = pytest.mark.requirement("K1")
HEAD = "name: teller\nversion: 1.0.0\ndescription: Tells.\n"
TOOL = """\
name: teller
version: 1.0.0
description: Tells.
tools:
  - name: which
    description: Which it is.
    source: tools/which.py
    input_schema:
      type: object
      properties: {times: {type: integer}}
"""
WHICH = "import math\n\n\ndef which(times=1):\n    return times\n"
SKILL = "---\nname: counting\ndescription: How to count.\n---\nOne, two.\n"


def problems_of(manifest: str | bytes = HEAD, files: Mapping[str, str | bytes] | None = None) -> list[str]:
    """What is told of a pack; nothing if it is whole."""
    everything = {"manifest.yaml": manifest, **(files or {})}
    try:
        check({path: text.encode() if isinstance(text, str) else text for path, text in everything.items()})
    except PackInvalid as error:
        assert error.problems
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (HEAD + "usse: []\n", "manifest.yaml:4: usse: unknown key; did you mean uses?"),
        (HEAD + "zzz: 1\n", "manifest.yaml:4: zzz: unknown key; known are name, version, description, planner"),
        (HEAD + "prompts:\n  sytem: x\n", "manifest.yaml:5: prompts.sytem: unknown key; did you mean system?"),
        (HEAD + "uses: all\n", "manifest.yaml:4: uses: must be a list"),
        (HEAD + "uses:\n  - code\n  - 5\n", "manifest.yaml:6: uses[1]: must be a text"),
        (HEAD + "prompts: [a]\n", "manifest.yaml:4: prompts: must be a mapping"),
        (HEAD + "prompts: {variables: []}\n", "manifest.yaml:4: prompts.variables: must be a mapping"),
        (HEAD + "prompts:\n  variables:\n    a: 1\n", "manifest.yaml:6: prompts.variables.a: must be a text"),
        (HEAD + "max_repairs: two\n", "manifest.yaml:4: max_repairs: must be a whole number"),
        (HEAD + "max_repairs: true\n", "manifest.yaml:4: max_repairs: must be a whole number"),
        (HEAD + "max_repairs: -1\n", "manifest.yaml:4: max_repairs: is no number of its range"),
        (HEAD + "max_repairs: 11\n", "manifest.yaml:4: max_repairs: must be less than or equal to 10"),
        (HEAD + "max_repairs: 99999999999999999999\n", "manifest.yaml:4: is a number of more than 64 bits"),
        (HEAD + "license:\n", "manifest.yaml:4: license: has no value"),
        (HEAD + "author: a\nname: b\n", "manifest.yaml:5: 'name' stands twice"),
        (HEAD + "author: &a b\nhomepage: *a\n", "manifest.yaml:4: anchors and aliases are not taken"),
        (HEAD + "planner: clever\n", "manifest.yaml:4: planner: must be in list"),
        (HEAD + "uses: [code, code]\n", "manifest.yaml:4: uses: repeated value must contain unique items"),
        (HEAD + "author: !!python/object/apply:os.system [x]\n", "manifest.yaml:4: author: must be a text"),
        (HEAD + "author: !!python/name:os.system x\n", "manifest.yaml:4: could not determine a constructor"),
        (HEAD + "author: !!timestamp x\n", "manifest.yaml:4: is no value of the tag tag:yaml.org,2002:timestamp"),
        (HEAD + "author: !!binary aGk=\n", "manifest.yaml:4: is neither a text nor a number"),
        (HEAD + 'author: "\\ud800"\n', "manifest.yaml:4: holds half of a character"),
        (HEAD + '"\\ud800": x\n', "manifest.yaml:4: holds half of a character"),
        (HEAD + "author: a\x07b\n", "manifest.yaml:4: holds the character U+0007"),
        (HEAD + "? [a]\n: b\n", "manifest.yaml:4: a key is no text"),
        (HEAD + "author: [\n", "manifest.yaml:5: expected the node content"),
        (HEAD + "---\na: b\n", "manifest.yaml:4: but found another document"),
        (HEAD.encode() + b"author: \xff\n", "manifest.yaml:4: is not UTF-8"),
        ("- a\n", "manifest.yaml:1: must be a mapping"),
        ("", "manifest.yaml:1: description: is missing"),
        (TOOL.replace("    description: Which it is.\n", ""), "manifest.yaml:5: tools[0].description: is missing"),
        (HEAD.replace("teller", "Teller"), "manifest.yaml:1: name: does not match regex pattern"),
        (HEAD + "author: " + "[" * 40, f"manifest.yaml:4: nests deeper than {MOST_DEPTH}"),
        ("[" * 100_000, f"manifest.yaml:1: nests deeper than {MOST_DEPTH}"),
        ("#" * (MOST_BYTES + 1), f"manifest.yaml: has more than {MOST_BYTES} bytes"),
        (HEAD + "knowledge: {files: [knowledge/*.md]}\n", "manifest.yaml:4: knowledge.files[0]: no file of the pack"),
        (HEAD + "prompts:\n  system: prompts/a.md\n", "manifest.yaml:5: prompts.system: there is no file prompts/a.md"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_manifest_is_told_with_its_line(manifest: str | bytes, told: str) -> None:
    assert problems_of(manifest)[0].startswith(told)


def test_a_pack_without_a_manifest_is_none() -> None:
    with pytest.raises(PackInvalid, match=r"manifest\.yaml: is missing"):
        check({"tools/a.py": b""})


def test_all_mistakes_are_told_at_once_and_bounded() -> None:
    told = problems_of(TOOL.replace("which.py", "wich.py") + "uses: [which]\n", {"tests/a.yaml": "case: []"})
    assert told == [
        "manifest.yaml:5: tools[0].name: 'which' is the name of another of its tools",
        "manifest.yaml:7: tools[0].source: there is no file tools/wich.py",
        "tests/a.yaml:1: case: unknown key; did you mean cases?",
    ]
    assert len(problems_of("".join(f"k{n}: 1\n" for n in range(500)))) == MOST_PROBLEMS
    assert max(map(len, problems_of(f"{'k' * 60_000}: 1\n"))) < 1_100


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def other(times):\n    pass\n", "manifest.yaml:5: tools[0].function: tools/which.py has no function which"),
        ("\n\ndef which():\n    pass\n", "tools/which.py:3: which takes no times, which the tool's input_schema"),
        ("def which(times, unit):\n    pass\n", "tools/which.py:1: which needs unit, which the tool's input_schema"),
        ("def which(times, *, unit):\n    pass\n", "tools/which.py:1: which needs unit"),
        ("def which(times, /):\n    pass\n", "tools/which.py:1: which takes arguments by place"),
        ("x = 1\ndef which(:\n", "tools/which.py:2: is no Python: invalid syntax"),
        ("x = '\0'\n", "tools/which.py: is no Python: source code string cannot contain null bytes"),
        ("x = " + "(" * 5000, "tools/which.py:1: is no Python"),
        ("-" * 100_000 + "1", "tools/which.py"),
        ("#" * (MOST_SOURCE + 1), f"tools/which.py: has more than {MOST_SOURCE} bytes"),
        (b"# \xff\n", "tools/which.py:1: is not UTF-8"),
    ],
)  # fmt: skip
def test_a_tool_that_could_not_be_called_is_told_with_its_line(source: str | bytes, told: str) -> None:
    problems = problems_of(TOOL, {"tools/which.py": source})
    assert any(problem.startswith(told) for problem in problems)
    assert "<unknown>" not in "".join(problems), "the file and the line stand before it"


@pytest.mark.parametrize(
    "source",
    [
        WHICH,
        "def which(**arguments):\n    pass\n",
        "def which(times, unit=1, *, more=2):\n    pass\n",
        "def which(*, times):\n    pass\n",
    ],
)
def test_a_function_may_take_more_than_the_schema_names_if_it_needs_none_of_it(source: str) -> None:
    assert problems_of(TOOL, {"tools/which.py": source}) == []


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("{type: objekt}", 'is no JSON Schema: "objekt"'),
        ("{type: array}", "must have the type object"),
        ("{type: object, properties: [{a: 1}]}", "is no JSON Schema"),
        ("{type: object, properties: 5}", "is no JSON Schema"),
        ("{type: object, properties: {times: {pattern: '('}}}", "is no JSON Schema"),
        ("{type: object, $ref: 'https://example.org/a'}", "is no JSON Schema"),
        ("5", "must be a mapping"),
    ],
)
def test_a_schema_that_is_none_is_told_with_its_line(schema: str, told: str) -> None:
    manifest = TOOL[: TOOL.index("    input_schema")] + f"    input_schema: {schema}\n"
    (problem,) = problems_of(manifest, {"tools/which.py": WHICH})
    assert problem.startswith("manifest.yaml:8: tools[0].input_schema: ")
    assert told in problem


def test_whole_numbers_of_a_schema_stay_whole() -> None:
    manifest = TOOL.replace("{type: integer}", "{type: integer, minimum: 1, maximum: 1.5}")
    pack = check({"manifest.yaml": manifest.encode(), "tools/which.py": WHICH.encode()})
    assert '"maximum":1.5,"minimum":1,' in pack.personality.own_tools[0].schema_json


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        (
            "You are {{name}}.\n\nTell {{nmae}}.",
            "prompts/system.md:3: there is no variable 'nmae'; there are ",
        ),
        ('{{"a": 1}}', "prompts/system.md:1: there is no variable '\"a\": 1'"),
        ("{{}}", "prompts/system.md:1: there is no variable ''"),
        (b"a\nb\n\xff", "prompts/system.md:3: is not UTF-8"),
        ("a" * (MOST_CHARACTERS + 1), f"prompts/system.md: has more than {MOST_CHARACTERS} characters"),
        ("{{long}}" * 10, f"prompts/system.md: has more than {MOST_CHARACTERS} characters"),
    ],
)
def test_a_prompt_that_cannot_be_rendered_is_told_with_its_line(prompt: str | bytes, told: str) -> None:
    manifest = f"{HEAD}prompts: {{system: prompts/system.md, variables: {{long: {'l' * 8000}}}}}\n"
    assert problems_of(manifest, {"prompts/system.md": prompt})[0].startswith(told)


def test_variables_are_put_in_once_and_nothing_else_is_a_template() -> None:
    text = "{{ name }} {% if a %} { {name} } {{a}} {{{{"
    assert render("p", text, {"name": "{{a}}", "a": "A"}) == "{{a}} {% if a %} { {name} } A {{{{"


@settings(max_examples=50)
@given(st.text(alphabet="{} a\n", max_size=400))
@example("{{" + " " * 100_000)
def test_any_prompt_is_rendered_or_refused(text: str) -> None:
    with contextlib.suppress(PackInvalid):
        render("p", text, {"a": "b"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# Counting\n", "skills/a/SKILL.md:1: begins with no frontmatter"),
        ("---\nname: a\n", "skills/a/SKILL.md:1: begins with no frontmatter"),
        ("---\n---\n", "skills/a/SKILL.md:1: its frontmatter needs description: a text"),
        ("---\nname: a\n----\n", "skills/a/SKILL.md:1: begins with no frontmatter"),
        ("---\nname: a\n---\n", "skills/a/SKILL.md:1: its frontmatter needs description: a text"),
        ("---\nname: a\ndescription: [b]\n---\n", "skills/a/SKILL.md:1: its frontmatter needs description"),
        ("---\nname: a\ndescription: b: c\n---\n", "skills/a/SKILL.md:3: mapping values are not allowed here"),
        (f"---\nname: a\ndescription: {'b' * 1025}\n---\n", "skills/a/SKILL.md:3: description: has more than 1024"),
        ("---\nname: a\n\nname: b\n---\n", "skills/a/SKILL.md:4: 'name' stands twice"),
        ("--- \n", "skills/a/SKILL.md:1: begins with no frontmatter"),
        (b"---\n\xff", "skills/a/SKILL.md:2: is not UTF-8"),
    ],
)  # fmt: skip
def test_a_skill_without_its_head_is_told_with_its_line(text: str | bytes, told: str) -> None:
    assert problems_of(files={"skills/a/SKILL.md": text})[0].startswith(told)


def test_knowledge_that_nothing_could_search_is_told() -> None:
    told = problems_of(f"{HEAD}knowledge: {{files: [knowledge/a.md]}}\n", {"knowledge/a.md": "x"})
    assert told == ["manifest.yaml:4: knowledge: nothing could search it: uses has to name knowledge_search"]


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("Begin {{ skills }} end.", "Begin - counting: How to count. end."),
        ("You count.", "You count.\n\nSkills, which read_skill reads:\n- counting: How to count."),
        ("{{other}}", "{{skills}}\n\nSkills, which read_skill reads:\n- counting: How to count."),
    ],
)
def test_skills_stand_where_the_prompt_says_or_at_its_end(prompt: str, told: str) -> None:
    manifest = f"{HEAD}prompts: {{system: prompts/p.md, variables: {{other: '{{{{skills}}}}'}}}}\n"
    pack = pack_of({"skills/a/SKILL.md": SKILL, "prompts/p.md": prompt}, manifest)
    assert pack.personality.instructions == told


def test_two_skills_of_one_name_are_told() -> None:
    told = problems_of(files={"skills/a/SKILL.md": SKILL, "skills/b/SKILL.md": SKILL})
    assert told == ["skills/b/SKILL.md: another skill is called 'counting'"]


def test_a_skill_of_another_agent_is_taken_as_it_is() -> None:
    windows = "\ufeff" + SKILL.replace("---\nOne", "license: MIT\nallowed-tools: [Bash]\n---\nOne").replace(
        "\n", "\r\n"
    )
    pack = pack_of(
        {"skills/a/SKILL.md": windows, "skills/a/more/x.md": "More.", "skills/a/x.png": b"\xff\xfe"}
    )
    (skill,) = pack.skills
    assert (skill.name, skill.description, skill.text) == ("counting", "How to count.", "One, two.")
    assert skill.files == {"more/x.md": "More."}
    assert "- counting: How to count." in pack.personality.instructions
    assert [tool.name for tool in pack.personality.own_tools] == ["read_skill"]


@pytest.mark.parametrize(
    ("cases", "told"),
    [
        ("cases:\n  - name: a\n    call: {tool: x}\n    expect: {}\n", "tests/a.yaml:3: cases[0].call: the pack has no tool 'x'"),
        ("cases:\n  - name: a\n    message: m\n", "tests/a.yaml:2: cases[0].expect: is missing"),
        ("cases:\n  - name: a\n    expect: {}\n", "tests/a.yaml:2: cases[0].action: exactly one field is required"),
        ("cases:\n  - name: a\n    message: m\n    call: {tool: which}\n    expect: {}\n", "tests/a.yaml:3: cases[0].message: stands beside call"),
        ("cases: []\n", "tests/a.yaml:1: cases: must contain at least 1 item"),
        ("cases:\n- {\n", "tests/a.yaml:3: "),
    ],
)  # fmt: skip
def test_a_mistake_in_a_test_is_told_with_its_line(cases: str, told: str) -> None:
    found = problems_of(TOOL, {"tools/which.py": WHICH, "tests/a.yaml": cases})
    assert any(problem.startswith(told) for problem in found), found


def test_a_test_may_expect_nothing_to_come_of_a_call() -> None:
    cases = "cases:\n  - name: a\n    call: {tool: which}\n    expect: {output: null}\n"
    pack = pack_of({"tools/which.py": WHICH, "tests/a.yaml": cases}, TOOL)
    expected = pack.tests["tests/a.yaml"].cases[0].expect
    assert expected.HasField("output")
    assert plain(expected.output) is None


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("knowledge/*.md", {"knowledge/a.md"}),
        ("knowledge/**/*.md", {"knowledge/a.md", "knowledge/x/b.md", "knowledge/x/y/c.md"}),
        ("knowledge/**", {"knowledge/a.md", "knowledge/x/b.md", "knowledge/x/y/c.md", "knowledge/x/d.txt"}),
        ("knowledge/*/*", {"knowledge/x/b.md", "knowledge/x/d.txt"}),
    ],
)
def test_knowledge_is_named_by_patterns_of_names_and_folders(pattern: str, names: set[str]) -> None:
    there = ["knowledge/a.md", "knowledge/x/b.md", "knowledge/x/y/c.md", "knowledge/x/d.txt", "prompts/p.md"]
    pack = pack_of(dict.fromkeys(there, "x"), f"{HEAD}uses: ['*']\nknowledge: {{files: ['{pattern}']}}\n")
    assert {path for path, _ in pack.knowledge()} == names


def pack_of(files: Mapping[str, str | bytes], manifest: str = HEAD) -> Pack:
    everything: dict[str, Any] = {"manifest.yaml": manifest, **files}
    return check({p: text.encode() if isinstance(text, str) else text for p, text in everything.items()})


YAML = st.lists(
    st.sampled_from(
        ["\n", " ", "  ", "- ", "? ", ": ", ":", ",", "[", "]", "{", "}", "|", ">", "'", '"', "#", "---", "...", "%YAML 1.1\n",
         "&a ", "*a", "!!", "!!int ", "!!bool ", "!!float ", "!!null ", "!!map ", "!!timestamp ", "!x ", "<<", "\\", "\t", "\r",
         "name", "tools", "input_schema", "prompts", "variables", "1e999", ".nan", "0x", "1:2", "0b", "1_", "~", "é", "\u2028", "\x85"]
    ),
    max_size=60,
).map("".join)  # fmt: skip


@settings(max_examples=400)
@given(st.binary(max_size=300) | YAML.map(str.encode) | YAML.map(lambda text: (HEAD + text).encode()))
def test_any_bytes_as_a_manifest_make_a_pack_or_are_refused(content: bytes) -> None:
    problems_of(content)
    problems_of(TOOL.encode() + content, {"tools/which.py": WHICH})
    problems_of(HEAD, {"tests/a.yaml": content, "skills/a/SKILL.md": b"---\n" + content + b"\n---\n"})


SCHEMA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "required", "items", "$ref", "pattern", "enum", "times", "x"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=100)
@given(SCHEMA)
def test_any_value_as_a_schema_makes_a_pack_or_is_refused(schema: Any) -> None:
    manifest = TOOL[: TOOL.index("    input_schema")] + f"    input_schema: {json.dumps(schema)}\n"
    problems_of(manifest, {"tools/which.py": WHICH})


@settings(max_examples=100)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_as_a_tool_make_a_pack_or_are_refused(source: bytes) -> None:
    problems_of(TOOL, {"tools/which.py": source})


@pytest.mark.parametrize("piece", ["- a\n", "{a,", "a: 1\n", "'", " ", "\r", "? ", "!a ", "a b ", "# x\n"])
def test_the_largest_document_is_read_or_refused_within_seconds(piece: str) -> None:
    problems_of((HEAD + piece * (MOST_BYTES // len(piece)))[:MOST_BYTES])
