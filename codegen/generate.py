"""The one command that regenerates everything below `gen/`, the SDK's `_gen` and `docs/reference`.

`--check` writes nothing and fails if a committed file differs from what would be generated.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OWNED = ("gen/python/kfm", "gen/python/buf", "sdk/python/xenocomm/_gen", "docs/reference")
VALIDATE = """
version: v2
inputs: [{directory: third_party/proto, paths: [third_party/proto/buf/validate]}]
plugins:
  - {protoc_builtin: python, protoc_path: [.venv/bin/python, -m, grpc_tools.protoc], out: gen/python}
  - {protoc_builtin: pyi, protoc_path: [.venv/bin/python, -m, grpc_tools.protoc], out: gen/python}
"""


def generate(out: Path) -> None:
    """Write every generated file below `out`; CalledProcessError if a proto or a plugin fails."""
    for template in ("buf.gen.yaml", VALIDATE):
        command = [".venv/bin/buf", "generate", "--template", template, "-o", str(out)]
        subprocess.run(command, cwd=ROOT, check=True)
    subprocess.run([".venv/bin/python", "-m", "codegen.image", str(out)], cwd=ROOT, check=True)


def tree(root: Path) -> dict[str, bytes]:
    """Every generated file below `root`, by its path."""
    return {
        str(p.relative_to(root)): p.read_bytes()
        for folder in OWNED
        for p in sorted((root / folder).rglob("*"))
        if p.is_file() and "__pycache__" not in p.parts
    }


def main() -> int:
    """Regenerate, or with --check compare; the exit code is 1 if a committed file differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        try:
            generate(Path(folder))
        except subprocess.CalledProcessError:
            return 1
        new, old = tree(Path(folder)), tree(ROOT)
    stale = sorted(p for p in {*new, *old} if new.get(p) != old.get(p))
    if check:
        for path in stale:
            print(f"{path} differs from what proto/ says: run `make gen` and commit it", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        if path in new:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_bytes(new[path])
        else:
            (ROOT / path).unlink()
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
