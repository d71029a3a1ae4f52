"""`make release`: keep the contract as it is as the release that `proto/RELEASE` names.

Writes tests/contract/snapshots/<release>/ (descriptor image, goldens, MCP tools, manifest of hashes) and
turns the section `## next` of proto/CHANGELOG.md, where changes are noted as they are made, into the
release's own. Refuses if a check of the contract fails, or if the release exists already.
"""

import hashlib
import json
import sys
from pathlib import Path

import protovalidate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from codegen.contract.checks import BEFORE_RELEASE
from codegen.contract.tree import ROOT, SNAPSHOTS, Tree
from codegen.samples import samples

CHANGELOG = "proto/CHANGELOG.md"
NEXT = "\n## next\n"


def digest(content: bytes) -> str:
    """sha256 in hex."""
    return hashlib.sha256(content).hexdigest()


def write(tree: Tree) -> Path:
    """Write the snapshot of the tree's HEAD and its part of the changelog; the folder that was made.

    Raises FileExistsError if the release was made before, and ValueError if a golden breaks the rules of
    its own message or the changelog does not say what is new.
    """
    folder = tree.root / SNAPSHOTS / tree.release
    if folder.exists():
        raise FileExistsError(f"{tree.release} is released: raise proto/RELEASE first")
    log = tree.root / CHANGELOG
    before, found, change = log.read_text(encoding="utf-8").partition(NEXT)
    if not found or not change.strip():
        raise ValueError(f"Say what is new at the end of {CHANGELOG}, below a line `## next`")
    validator = protovalidate.Validator()
    for name, message in samples(tree.head.schema):
        broken = validator.collect_violations(message)
        if broken:
            raise ValueError(f"{name}: give codegen/samples.py a valid value: {broken}")
    files = {"image.binpb": tree.head.image, "mcp_tools.json": _json(tree.head.tools)}
    for name, _, content, as_json in tree.head.goldens():
        files[f"goldens/{name}.binpb"] = content
        files[f"goldens/{name}.json"] = _json(as_json)
    manifest = _json({name: digest(content) for name, content in sorted(files.items())})
    for name, content in {**files, "manifest.json": manifest}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    done = f"\n## {tree.release}\n\n{change.strip()}\n\nManifest: `{digest(manifest)}`\n"
    log.write_text(before + done, encoding="utf-8")
    return folder


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def main() -> int:
    """The command; exit code 1 with what is wrong if the contract may not be released so."""
    tree = Tree(ROOT)
    problems = [p for check in BEFORE_RELEASE for p in check(tree)]
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        return 1
    try:
        print(write(tree))
    except (FileExistsError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
