"""The fault matrix: kill -9 at every failpoint, in every process that passes it, on every bus.

`python -m tests.faults.matrix.run` runs cells and appends what it counted to results.jsonl;
`python -m tests.faults.matrix.page` makes docs/faults.md of it.
"""
