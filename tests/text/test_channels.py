"""The messages of gpt-oss are told apart, whatever the bits in which the text comes."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from localllm.text.calls import FORMATS, Call, CallReader, formats_of
from localllm.text.channels import MARKS, ChannelSplitter
from localllm.text.reasoning import HARMONY, marks_of

ANALYSIS, FINAL = "<|channel|>analysis<|message|>", "<|channel|>final<|message|>"
START = "<|start|>assistant"
CALL = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "x"}<|call|>'
READ_CALL = ' to=functions.weather <|constrain|>json<|message|>{"city": "x"}'

CASES = {
    f"{ANALYSIS}Hm, 1 < 2.<|end|>{START}{FINAL}Yes.": ("Hm, 1 < 2.", "Yes."),
    f"{ANALYSIS}a<|end|>{START}{ANALYSIS}b<|end|>{START}{FINAL}c<|return|>": ("ab", "c"),
    f"{FINAL}Yes <|en": ("", "Yes <|en"),
    f"{ANALYSIS}never ended": ("never ended", ""),
    f"{ANALYSIS}a<|end|>{START}<|channel|>fin": ("a", ""),
    "plain <|text|>": ("", "plain <|text|>"),
    "to be": ("", "to be"),
    "t": ("", "t"),
    "": ("", ""),
    f"<|channel|>commentary<|message|>Look:<|end|>{START}{FINAL}b": ("", "Look:\n\nb"),
    f"{ANALYSIS}a<|end|>{START}{CALL}": ("a", READ_CALL),
    ' to=functions.weather<|channel|>commentary json<|message|>{"city": "x"}<|call|>': (
        "",
        ' to=functions.weather<|channel|>commentary json<|message|>{"city": "x"}',
    ),
    f"{ANALYSIS}a{START}{FINAL}b": ("a", "b"),
}


def split(parts: list[str]) -> tuple[str, str]:
    splitter = ChannelSplitter()
    pieces = [piece for part in parts for piece in splitter.push(part)] + splitter.finish()
    assert all(piece.text for piece in pieces)
    reasoning, answer = ("".join(piece.text for piece in pieces if piece.reasoning is kind) for kind in (True, False))
    return reasoning, answer


@pytest.mark.parametrize("text", CASES)
def test_every_place_to_cut(text: str) -> None:
    for count in (0, 1):
        for at in itertools.combinations(range(len(text) + 1), count):
            assert split([text[a:b] for a, b in itertools.pairwise((0, *at, len(text)))]) == CASES[text], at
    assert split(list(text)) == CASES[text]


def test_reasoning_is_shown_as_it_comes() -> None:
    splitter = ChannelSplitter()
    assert splitter.push(f"{ANALYSIS}a b") == [("a b", True)]
    assert splitter.push(" c<|e") == [(" c", True)]
    assert splitter.push(f"nd|>{START}{FINAL}d") == [("d", False)]


def test_calls_are_found_behind_it() -> None:
    for text, (_, answer) in CASES.items():
        reader = CallReader(FORMATS[-1:], ["weather"])
        shown = reader.push(answer)
        rest, calls = reader.finish()
        assert calls == ([Call("weather", '{"city": "x"}')] if "functions" in text else [])
        assert calls or shown + rest == answer


def test_the_template_is_known(shared: Path) -> None:
    for file in (shared / "templates").glob("*.jinja"):
        assert (marks_of(file.read_text()) == HARMONY) == ("gpt-oss" in file.name)
        if "gpt-oss" in file.name:
            assert set(formats_of(file.read_text())[0].marks) <= MARKS


def test_nothing_fails() -> None:
    rng = random.Random(3)
    bits = [*MARKS, "assistant", "analysis", "final", "to=functions.x", " ", "a", "<|", "|>", "\n", "<|return|>"]
    for _ in range(3000):
        text = "".join(rng.choices(bits, k=rng.randrange(12)))
        assert split(list(text)) == split([text])
