"""Each check of the contract fails on a broken copy, and its message says what to do."""

from collections.abc import Callable
from pathlib import Path

import pytest

from codegen.contract import checks
from codegen.contract.tree import Check, Tree

RELEASE = Tree().release

pytestmark = pytest.mark.requirement("S4")

TURN_EVENTS = "proto/kfm/event/v1/turn_events.proto"
SYSTEM_EVENTS = "proto/kfm/event/v1/system_events.proto"
TYPES = "proto/kfm/type/v1/type.proto"
TURN = "proto/kfm/turn/v1/turn.proto"
SERVICE = "proto/kfm/turn/v1/turn_service.proto"
ERRORS = "proto/kfm/error/v1/error.proto"
OPTIONS = "proto/kfm/options/v1/options.proto"
SNAPSHOT = "tests/contract/snapshots/1.0.0"
Break = Callable[[Path], None]


def edit(path: str, old: str, new: str) -> Break:
    """Replace the first place where `old` stands."""

    def apply(root: Path) -> None:
        text = (root / path).read_text(encoding="utf-8")
        assert old in text, f"{path} does not hold {old!r} any more: write this mutation anew"
        (root / path).write_text(text.replace(old, new, 1), encoding="utf-8")

    return apply


def after(path: str, anchor: str, old: str, new: str) -> Break:
    """Replace the first `old` behind the first `anchor`."""

    def apply(root: Path) -> None:
        head, found, tail = (root / path).read_text(encoding="utf-8").partition(anchor)
        assert found and old in tail, f"{path}: write this mutation anew"
        (root / path).write_text(head + found + tail.replace(old, new, 1), encoding="utf-8")

    return apply


def flip(path: str) -> Break:
    def apply(root: Path) -> None:
        content = bytearray((root / path).read_bytes())
        content[-1] ^= 1
        (root / path).write_bytes(bytes(content))

    return apply


MUTATIONS: dict[str, tuple[Check, Break, str]] = {
    "a renamed field": (
        checks.nothing_breaks,
        edit(TURN_EVENTS, "string principal = 1;", "string actor = 1;"),
        "new package v2",
    ),
    "a changed type": (
        checks.nothing_breaks,
        edit(SYSTEM_EVENTS, "uint64 source_offset = 4;", "uint32 source_offset = 4;"),
        "undo it",
    ),
    "a changed type, seen by new readers": (
        checks.new_readers_read_old_messages,
        edit(TURN_EVENTS, "int32 complexity = 5;", "string complexity = 5;"),
        "A change inside v1 only adds",
    ),
    "a reused number": (
        checks.new_readers_read_old_messages,
        edit(TYPES, "string tool = 3;", "bool urgent = 3;"),
        "undo it, or make it in a new package v2",
    ),
    "a deleted message": (
        checks.nothing_breaks,
        edit(TURN, "message Gap {", "message Hole {"),
        "make it in a new package v2",
    ),
    "a tightened rule": (
        checks.rules_only_loosen,
        edit(TURN, "max_items: 64", "max_items: 8"),
        "rules may only loosen",
    ),
    "a new rule": (
        checks.rules_only_loosen,
        edit(TYPES, "string tool = 3;", "string tool = 3 [(buf.validate.field).string.max_len = 10];"),
        "rules may only loosen",
    ),
    "a tightened rule, seen by old goldens": (
        checks.new_readers_read_old_messages,
        edit(TURN, 'pattern: "^[a-z][a-z0-9_.-]{0,62}$"', 'pattern: "^x[a-z0-9_.-]{0,62}$"'),
        "rules may only loosen; undo the rule",
    ),
    "a new required field": (
        checks.rules_only_loosen,
        edit(
            SERVICE,
            "message CancelTurnRequest {",
            "message CancelTurnRequest {\n  // Who.\n  string who = 9 [(buf.validate.field).string.min_len = 1];",
        ),
        "make it optional with a default that means `as before`",
    ),
    "a changed type, seen by old readers": (
        checks.old_readers_keep_new_messages,
        edit(TURN_EVENTS, "int32 complexity = 5;", "string complexity = 5;"),
        "leave the type of old ones",
    ),
    "a changed closure without a version": (
        checks.changed_events_have_a_new_version,
        edit(TYPES, "metadata = 4;", "metadata = 4;\n  // How bad.\n  int32 severity = 5;"),
        f'DeadLetterEvent.v1 changed since {RELEASE} (in kfm.type.v1.Error) and its spec_version is still "1.0.0": '
        f'set it to "{RELEASE}", and raise proto/RELEASE',
    ),
    "a new enum value without a version": (
        checks.changed_events_have_a_new_version,
        edit(
            SYSTEM_EVENTS,
            "LIFECYCLE_PHASE_STOPPED = 4;",
            "LIFECYCLE_PHASE_STOPPED = 4;\n  // Lost.\n  LIFECYCLE_PHASE_LOST = 5;",
        ),
        "LifecycleEvent.v1 changed",
    ),
    "a version that moved for nothing": (
        checks.changed_events_have_a_new_version,
        edit(SYSTEM_EVENTS, 'spec_version: "1.0.0"', 'spec_version: "1.1.0"'),
        'set its spec_version back to "1.0.0"',
    ),
    "an unreleased change": (
        checks.changed_contract_is_a_new_release,
        edit(
            SERVICE,
            "TurnState state = 3;",
            "TurnState state = 3;\n  // Place in the queue.\n  uint32 place = 4;",
        ),
        "raise proto/RELEASE",
    ),
    "a release that goes back": (
        checks.changed_contract_is_a_new_release,
        edit("proto/RELEASE", RELEASE, "1.0.1"),
        "raise it",
    ),
    "a new major in the same line": (
        checks.changed_contract_is_a_new_release,
        edit("proto/RELEASE", RELEASE, "2.0.0"),
        "a new package",
    ),
    "an edited golden": (
        checks.snapshots_are_as_they_were_released,
        flip(f"{SNAPSHOT}/goldens/kfm.event.v1.TurnEvent.binpb"),
        "a release never changes; make a new one",
    ),
    "an edited manifest": (
        checks.snapshots_are_as_they_were_released,
        edit(f"{SNAPSHOT}/manifest.json", '"image.binpb": "', '"image.binpb": "0'),
        "git checkout",
    ),
    "a deleted snapshot": (
        checks.snapshots_are_as_they_were_released,
        lambda root: (root / SNAPSHOT).rename(root / "away"),
        "bring it back from git",
    ),
    "an edited JSON golden": (
        checks.json_and_bytes_agree,
        edit(f"{SNAPSHOT}/goldens/kfm.event.v1.PlanEvent.json", '"complexity": 7', '"complexity": 8'),
        "restore them from git",
    ),
    "a changed topic": (
        checks.options_stay,
        edit(TURN_EVENTS, "topic: TOPIC_PLANS", "topic: TOPIC_AUDIT"),
        "topic was 'agent.plans'",
    ),
    "a renamed topic": (
        checks.options_stay,
        edit(OPTIONS, '(topic) = "agent.plans"', '(topic) = "agent.plan"'),
        "set it back",
    ),
    "a flipped may_ignore": (
        checks.options_stay,
        after(SYSTEM_EVENTS, "message ConfigChangedEvent", "may_ignore: true", "may_ignore: false"),
        "ConfigChangedEvent.v1: may_ignore was True",
    ),
    "a changed scope": (
        checks.options_stay,
        edit(SERVICE, 'scope: "turns.write"', 'scope: "turns.admin"'),
        "scope was 'turns.write'",
    ),
    "a changed route": (
        checks.options_stay,
        edit(SERVICE, 'post: "/v1/turns"', 'post: "/v1/turn"'),
        "HTTP route was ('POST', '/v1/turns')",
    ),
    "a renamed tool": (
        checks.options_stay,
        edit(SERVICE, 'name: "kfm_turn_get"', 'name: "kfm_get_turn"'),
        "MCP tool was 'kfm_turn_get'",
    ),
    "a removed tool": (
        checks.mcp_inputs_only_widen,
        edit(SERVICE, 'name: "kfm_turn_get"', 'name: "kfm_get_turn"'),
        "bring it back",
    ),
    "a tool that takes less": (
        checks.mcp_inputs_only_widen,
        after(SERVICE, "message ListTurnsRequest", "lte: 200", "lte: 100"),
        "page_size has a tighter maximum since 1.0.0: inputs may only widen",
    ),
    "a changed idempotency level": (
        checks.options_stay,
        edit(SERVICE, "idempotency_level = NO_SIDE_EFFECTS", "idempotency_level = IDEMPOTENT"),
        "idempotency_level was",
    ),
    "a changed exit code": (
        checks.options_stay,
        edit(ERRORS, "exit_code: 3", "exit_code: 33"),
        "REASON_TURN_NOT_FOUND: exit_code was 3",
    ),
    "a changed gRPC code": (
        checks.options_stay,
        edit(ERRORS, "grpc_code: 5", "grpc_code: 9"),
        "grpc_code was 5",
    ),
    "a reason that stops being retryable": (
        checks.options_stay,
        edit(ERRORS, "retryable: true", "retryable: false"),
        "retryable was True",
    ),
    "a changed effect contract": (
        checks.options_stay,
        edit(TYPES, "{rerun: true}", "{rerun: false}"),
        "EFFECT_CONTRACT_PURE: rerun was True",
    ),
    "an edited vendored proto": (
        checks.third_party_protos_are_as_vendored,
        edit("third_party/proto/google/api/http.proto", "message Http {", "message Http { "),
        "restore it, or vendor a new version",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_copy_fails_with_advice(name: str, tmp_path: Path) -> None:
    check, apply, advice = MUTATIONS[name]
    tree = Tree().copy(tmp_path)
    apply(tmp_path)
    assert advice in "\n".join(check(tree)), check(tree)


def test_every_check_has_a_mutation() -> None:
    assert {check for check, _, _ in MUTATIONS.values()} >= set(checks.CHECKS)
