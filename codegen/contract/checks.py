"""All checks of the contract, by what they promise."""

from codegen.contract.options import mcp_inputs_only_widen, options_stay
from codegen.contract.readers import (
    json_and_bytes_agree,
    new_readers_read_old_messages,
    old_readers_keep_new_messages,
)
from codegen.contract.rules import rules_only_loosen
from codegen.contract.tree import SNAPSHOTS, Check, Tree
from codegen.contract.versions import (
    changed_contract_is_a_new_release,
    changed_events_have_a_new_version,
    snapshots_are_as_they_were_released,
    third_party_protos_are_as_vendored,
)


def nothing_breaks(tree: Tree) -> list[str]:
    """`buf breaking` of the protos against every release."""
    problems: list[str] = []
    for snapshot in tree.snapshots:
        against = f"{SNAPSHOTS}/{snapshot.name}/image.binpb"
        done = tree.buf("breaking", "proto", "--against", against)
        problems += [
            f"{line} (since {snapshot.name}). Clients of that release would break: undo it, or make it in a new "
            "package v2 beside v1"
            for line in (done.stdout + done.stderr).decode().splitlines()
            if done.returncode
        ]
    return problems


CHECKS: tuple[Check, ...] = (
    nothing_breaks,
    new_readers_read_old_messages,
    old_readers_keep_new_messages,
    json_and_bytes_agree,
    rules_only_loosen,
    options_stay,
    mcp_inputs_only_widen,
    changed_events_have_a_new_version,
    changed_contract_is_a_new_release,
    snapshots_are_as_they_were_released,
    third_party_protos_are_as_vendored,
)
BEFORE_RELEASE = CHECKS
