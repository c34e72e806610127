"""Reasoning is told from the answer, whatever the bits in which the text comes."""

import itertools

import pytest

from localllm.text.reasoning import FAMILIES, MARKERS, Marks, ReasoningSplitter, marks_of

THINK = FAMILIES[0]


def split(parts: list[str], marks: Marks | None = THINK, prompt: str = "") -> tuple[str, str]:
    """(reasoning, answer), joined."""
    splitter = ReasoningSplitter(marks, prompt)
    pieces = [piece for part in parts for piece in splitter.push(part)] + splitter.finish()
    assert all(piece.text for piece in pieces)
    return tuple("".join(piece.text for piece in pieces if piece.reasoning is kind) for kind in (True, False))  # type: ignore[return-value]


CASES = {
    "<think>\nWell, 1 < 2.\n</think>\n\nYes. \n": ("Well, 1 < 2.", "Yes. \n"),
    " \n<think>a</think>b": ("a", "b"),
    "<think>\n\n</think>\n\nb": ("", "b"),
    "<think>never closed </thin": ("never closed </thin", ""),
    "no reasoning, <think> is a mark": ("", "no reasoning, <think> is a mark"),
    "<thing>": ("", "<thing>"),
    "<thi": ("", "<thi"),
    "  spaced answer": ("", "  spaced answer"),
    "<think>a </think > b</think>c</think>d": ("a </think > b", "c</think>d"),
    "": ("", ""),
}


@pytest.mark.parametrize("text", CASES)
def test_every_place_to_cut(text: str) -> None:
    for count in (0, 1, 2):
        for at in itertools.combinations(range(len(text) + 1), count):
            assert split([text[a:b] for a, b in itertools.pairwise((0, *at, len(text)))]) == CASES[text], at
    assert split(list(text)) == CASES[text]


def test_a_prompt_may_begin_the_reasoning() -> None:
    prompt = "<|assistant|>\n<think>\n"
    for parts in (["\nhm", "m\n</th", "ink>\n\nYes"], list("\nhmm\n</think>\n\nYes")):
        assert split(parts, prompt=prompt) == ("hmm", "Yes")
    assert split(["hmm"], prompt="<think>\n\n</think>\n\n") == ("", "hmm")


def test_a_model_that_does_not_reason() -> None:
    assert split(["<think>a</think>", "b"], marks=None) == ("", "<think>a</think>b")


def test_reasoning_is_shown_as_it_comes() -> None:
    splitter = ReasoningSplitter(THINK)
    assert splitter.push("<think>a b") == [("a b", True)]
    assert splitter.push(" ") == []
    assert splitter.push("c<") == [(" c", True)]
    assert splitter.push("/think>d") == [("d", False)]
    assert splitter.push("e") == [("e", False)]


@pytest.mark.parametrize("marks", FAMILIES)
def test_families_are_found_in_templates(marks: Marks) -> None:
    assert marks_of(f"{{{{ '{marks.open}' }}}} ... {{{{ '{marks.close}' }}}}") == marks
    assert split([f"{marks.open}\na\n{marks.close}\nb"], marks) == ("a", "b")
    assert {*marks} <= MARKERS
    assert marks_of("{{ messages }}") is None
