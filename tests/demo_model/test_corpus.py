"""The corpus: the same for the same seed, well formed, and apart from the held-out questions."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest

from tools.demo_model import corpus, evaluate, facts, numbers
from tools.demo_model.grammar import parse, say


def test_same_seed_same_conversations() -> None:
    first = list(corpus.conversations(5, 300))
    assert first == list(corpus.conversations(5, 300))
    assert first != list(corpus.conversations(6, 300))


def test_conversations_alternate_and_are_filled_in() -> None:
    for one in corpus.conversations(11, 3000):
        roles = [role for role, _ in one if role != "system"]
        assert roles == [""] or roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(text.strip() and not re.search(r"[{}|]", text) for _, text in one)


def test_arithmetic_is_right_in_every_turn() -> None:
    rng = random.Random(3)
    seen = 0
    for _ in range(3000):
        for _, answer in numbers.arithmetic(rng):
            a, op, b, value = re.fullmatch(r"(?:Yes, )?(\d+) ([-+x]) (\d+) = (-?\d+)\.", answer).groups()  # type: ignore[union-attr]
            assert int(value) == {"+": int(a) + int(b), "-": int(a) - int(b), "x": int(a) * int(b)}[op]
            seen += 1
    assert seen >= 3000


def test_counting_is_regular() -> None:
    rng = random.Random(4)
    for _ in range(1000):
        for _, answer in numbers.counting(rng):
            values = evaluate.numbers(answer)
            assert len({b - a for a, b in pairwise(values)}) <= 1
            assert answer == ", ".join(map(str, values)) + "."


def test_number_words() -> None:
    assert [numbers.words(n) for n in (0, 12, 20, 47, 99)] == ["zero", "twelve", "twenty", "forty-seven", "ninety-nine"]


def test_facts_agree_with_the_calendar() -> None:
    import calendar

    assert list(calendar.day_name) == facts.DAYS
    assert list(calendar.month_name)[1:] == facts.MONTHS
    assert [calendar.monthrange(2023, month)[1] for month in range(1, 13)] == facts.LENGTHS


def test_grammar() -> None:
    rng = random.Random(0)
    assert {say(rng, "a (b|c(d|e)|) {x}", x=1) for _ in range(200)} == {"a b 1", "a cd 1", "a ce 1", "a 1"}
    with pytest.raises(ValueError, match="unbalanced template"):
        parse("(a|b")
    with pytest.raises(ValueError, match="unbalanced template"):
        parse("a)")


def test_the_corpus_does_not_ask_the_held_out_questions() -> None:
    assert evaluate.overlap(evaluate.cases(), 1000, 20000) == []
