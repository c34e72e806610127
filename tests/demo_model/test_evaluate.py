"""The automatic check: 200 cases, each decidable, strict on wrong answers."""

from __future__ import annotations

from collections import Counter

import pytest

from tools.demo_model import evaluate


def test_two_hundred_different_cases_of_the_whole_world() -> None:
    cases = evaluate.cases()
    assert len(cases) == 200
    assert len({tuple(case["turns"]) for case in cases}) == 200
    assert sum(len(case["turns"]) > 1 for case in cases) >= 15
    for category in (
        "small talk identity commands sums differences products follow-ups counting facts stories memory outside"
    ).replace("small talk", "small_talk").split():
        assert Counter(case["category"].replace(" ", "_") for case in cases)[category] >= 8


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        ({"number": 12}, "7 + 5 = 12.", "7 + 12 = 19."),
        ({"number": -3}, "4 - 7 = -3.", "4 - 7 = 3."),
        ({"any": ["paris"]}, "The capital of France is Paris.", "I like comparisons."),
        ({"any": ["apple", "pear"]}, "Three fruits are pears, plums and kiwis.", "A spear."),
        ({"any": ["?"]}, "What has hands but cannot clap? A clock.", "No."),
        ({"sequence": [3, 2, 1]}, "3, 2, 1.", "3, 2, 1, 0."),
        ({"story": ["fox"]}, "Once a fox " + "ran on and " * 10, "Once a fox ran."),
    ],
)
def test_checks(check: dict[str, object], right: str, wrong: str) -> None:
    assert evaluate.correct(check, right)
    assert not evaluate.correct(check, wrong)


def test_an_unknown_check_is_refused() -> None:
    with pytest.raises(ValueError, match="exactly one of"):
        evaluate.correct({"numbr": 1}, "1")


def test_earlier_turns_are_answered_by_the_model() -> None:
    heard: list[list[str]] = []

    def answer(messages: list[evaluate.Message]) -> str:
        heard.append([m["content"] for m in messages])
        return f"{len(messages)}"

    case = {"category": "c", "turns": ["a", "b"], "check": {"number": 3}}
    assert evaluate.evaluate(answer, [case])[0] == {"c": 1}
    assert heard == [["a"], ["a", "1", "b"]]
