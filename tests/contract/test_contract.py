"""The contract as it is keeps every promise of the releases before it."""

import pytest

from codegen.contract.checks import CHECKS
from codegen.contract.tree import Check, Tree


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree()


@pytest.mark.requirement("S4")
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_the_contract_passes(tree: Tree, check: Check) -> None:
    assert check(tree) == []


@pytest.mark.requirement("S4")
def test_two_releases_are_kept_and_the_second_added_a_field_and_an_event(tree: Tree) -> None:
    first, second = tree.snapshots[:2]
    before = {name for name, _, _ in first.schema.events()}
    added = {name: options for name, _, options in second.schema.events() if name not in before}
    assert set(added) == {"LifecycleEvent.v1"}
    assert added["LifecycleEvent.v1"].may_ignore
    fields = [
        s.schema.pool.FindMessageTypeByName("kfm.event.v1.TurnEvent").fields_by_name for s in (first, second)
    ]
    assert set(fields[1]) - set(fields[0]) == {"policy_reference"}


@pytest.mark.requirement("S3", "S4")
def test_every_event_and_every_exchanged_message_has_a_golden(tree: Tree) -> None:
    newest = tree.snapshots[-1]
    names = {full_name for _, full_name, _, _ in newest.goldens()}
    messages = {m.full_name for m in newest.schema.messages() if m.file.package != "kfm.options.v1"}
    assert names == messages
    assert {f"kfm.event.v1.Envelope.{m.name}" for _, m, _ in newest.schema.events()} <= {
        name for name, _, _, _ in newest.goldens()
    }
