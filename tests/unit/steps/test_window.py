"""What a model is shown of a long conversation."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm.event.v1 import turn_events_pb2 as ev
from kfm.type.v1 import type_pb2 as types
from kfm_server.ports.history import Exchange
from kfm_server.ports.models import Message
from kfm_server.steps.tokens import tokens_of
from kfm_server.steps.window import (
    MAX_RECALLED,
    MAX_SEARCHED,
    MAX_VERBATIM,
    RECALLED_CHARACTERS,
    messages_of,
    window_of,
)

pytestmark = pytest.mark.requirement("R5")


def parts(text: str) -> tuple[types.Part, ...]:
    return (types.Part(text=text),)


def conversation(*texts: tuple[str, str]) -> Sequence[Exchange]:
    return [
        Exchange(f"turn{i}", parts(said), parts(answer), ev.OUTCOME_SUCCEEDED, None, i, i, i)
        for i, (said, answer) in enumerate(texts)
    ]


FILLER = [(f"What is {n} plus {n}?", f"It is {2 * n}.") for n in range(300)]


def test_a_short_conversation_is_shown_as_it_was() -> None:
    earlier = conversation(*FILLER[:5])
    window = window_of(earlier, parts("And my dog?"), 100_000)
    assert (window.recalled, list(window.exchanges)) == ("", list(earlier))


def test_a_fact_of_long_ago_is_recalled_when_the_message_bears_on_it() -> None:
    earlier = conversation(*FILLER[:2], ("My dog is called Bruno.", "A fine name."), *FILLER[2:])
    window = window_of(earlier, parts("Where do dogs sleep?"), 2_000)
    assert "My dog is called Bruno." in window.recalled
    assert len(window.exchanges) <= MAX_VERBATIM
    assert "Bruno" not in window_of(earlier, parts("Good morning!"), 2_000).recalled


def test_how_a_long_conversation_began_is_told_also_when_nothing_bears_on_the_message() -> None:
    earlier = conversation(("Help me to plan a garden.", "Gladly."), *FILLER)
    assert window_of(earlier, parts("Good morning!"), 2_000).recalled.splitlines()[1:] == [
        "- user: Help me to plan a garden.",
        "  you: Gladly.",
    ]


@pytest.mark.parametrize("padding", [0, 420, 2_000, 30_000])
def test_a_fact_deep_within_a_long_message_is_found_and_shown_around_what_is_shared(padding: int) -> None:
    pad = ("All is well here. " * 2_000)[:padding]
    said = [*FILLER[:9], (f"{pad} My dog is called Bruno. {pad}", "Fine."), *FILLER]
    recalled = window_of(conversation(*said), parts("Where do dogs sleep?"), 2_000).recalled
    line = next(line for line in recalled.splitlines() if "My dog is called Bruno." in line)
    assert line.startswith("- user: …") == (padding > 400) and line.endswith("…") == (padding > 0)
    assert len(line) <= RECALLED_CHARACTERS + len("- user: ……")


def test_an_excerpt_stands_where_most_of_the_message_is_shared() -> None:
    said = f"A dog. {'word ' * 300} The dog sleeps in the kitchen. {'word ' * 300} Another dog."
    recalled = window_of(
        conversation(*FILLER[:9], (said, "ok"), *FILLER), parts("Do dogs sleep in a kitchen?"), 2_000
    )
    assert "The dog sleeps in the kitchen." in recalled.recalled


def test_the_head_of_a_message_is_shown_where_nothing_of_it_is_shared() -> None:
    earlier = conversation(("Garden plans: " + "abc " * 500, "Gladly."), *FILLER)
    recalled = window_of(earlier, parts("Good morning!"), 2_000).recalled
    assert "- user: Garden plans: abc" in recalled and "…" in recalled


@pytest.mark.parametrize("padding", [0, 420, 2_000])
def test_text_without_spaces_between_words_is_matched_by_pairs_of_letters(padding: int) -> None:
    said = "今日は天気がいいです。" * (padding // 11) + "私の猫の名前はタマです。"
    earlier = conversation(*FILLER[:9], (said, "はい"), *FILLER)
    assert "猫の名前はタマ" in window_of(earlier, parts("猫の名前は何ですか"), 3_000).recalled


def test_where_there_is_too_much_to_search_only_the_longest_are_cut() -> None:
    late = "x " * (MAX_SEARCHED // 2) + "zebra"
    said = [*FILLER[:9], (late, late), ("y " * 3_000 + "A zebra ran.", "ok"), *FILLER]
    recalled = window_of(conversation(*said), parts("A zebra?"), 2_000).recalled
    assert "A zebra ran." in recalled and "x x" not in recalled


def test_what_is_cut_for_its_length_says_so_also_where_most_of_it_is_space() -> None:
    said = [("My cat" + " " * MAX_SEARCHED + "is old", "ok"), *FILLER[:30]]
    assert "My cat…" in window_of(conversation(*said), parts("cat?"), 10_000).recalled


def test_what_is_recalled_stands_in_the_order_in_which_it_was_said() -> None:
    said = [(f"My cat number {n} is old", "ok") for n in range(30)]
    recalled = window_of(conversation(*said, *FILLER[:30]), parts("my cat?"), 10_000).recalled
    numbers = [int(line.split("number ")[1].split()[0]) for line in recalled.splitlines() if "number" in line]
    assert numbers == sorted(numbers) and len(numbers) == MAX_RECALLED


@given(
    st.lists(st.tuples(st.text(max_size=200), st.text(max_size=200)), max_size=60),
    st.text(max_size=100),
    st.integers(-100, 5_000),
)
def test_a_window_never_takes_more_room_than_there_is(
    texts: list[tuple[str, str]], message: str, room: int
) -> None:
    window = window_of(conversation(*texts), parts(message), room)
    shown = [m for exchange in window.exchanges for m in messages_of(exchange)]
    told = (Message("system", window.recalled),) if window.recalled else ()
    assert not (shown or told) or tokens_of([*shown, *told]) <= max(room, 0)
    again = window_of(conversation(*texts), parts(message), room)
    assert again == window, "a replay is shown the same"
