"""Sampling parameters refuse what they cannot mean, and name the field; errors know their code and their status."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from localllm import errors
from localllm.params import Grammar, SamplingParams

HEADER = Path(__file__).parent.parent / "native" / "include" / "localllm_abi.h"

WRONG: list[tuple[str, Any]] = [
    *[("max_tokens", value) for value in (0, -1, 1.5, "5", True, 2**31)],
    *[("temperature", value) for value in (-0.1, math.nan, math.inf, "1", None, 101, True)],
    *[("top_k", value) for value in (-1, 1.0, None, "40")],
    *[("top_p", value) for value in (-0.1, 1.1, math.nan, None)],
    *[("min_p", value) for value in (-0.1, 1.1, math.nan)],
    *[("repeat_penalty", value) for value in (0, 1e-300, -1, math.inf, None)],
    *[("presence_penalty", value) for value in (math.nan, 101, "0")],
    *[("frequency_penalty", value) for value in (math.nan, -101, None)],
    *[("seed", value) for value in (-1, 2**64, 0.5, "1")],
    *[("stop", value) for value in ("", ("",), ("a", ""), (1,), 5, None, b"x")],
    *[("logit_bias", value) for value in ({-1: 0.0}, {"1": 0.0}, {1: math.nan}, {1: math.inf}, {1: 1e300}, {1: "x"})],
    *[("logit_bias", value) for value in ([], None)],
    *[("logprobs", value) for value in (-1, 1025, 1.0, True)],
    *[("ignore_eos", value) for value in (1, None, "yes")],
    *[("priority", value) for value in (-1, 3, None, 1.0)],
    *[("calls", value) for value in (None, "f", {"name": "f"}, ["f"], [{}], [{"function": {"parameters": {}}}])],
]

RIGHT: list[dict[str, Any]] = [
    {},
    {"temperature": 0, "top_k": 0, "top_p": 1, "min_p": 0},
    {"seed": 2**64 - 1, "max_tokens": 1, "logprobs": 0, "priority": 2, "ignore_eos": True},
    {"logit_bias": {0: -math.inf, 5: 3}, "stop": ["a", "b"], "presence_penalty": -2, "repeat_penalty": 0.5},
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match=name):
        SamplingParams(**{name: value})


@pytest.mark.parametrize("values", RIGHT)
def test_a_right_value_is_kept(values: dict[str, Any]) -> None:
    params = SamplingParams(**values)
    for name, value in values.items():
        assert getattr(params, name) == (tuple(value) if name == "stop" else value)


def test_a_grammar_says_its_syntax() -> None:
    assert SamplingParams(grammar=Grammar("regex", "a+")).grammar == Grammar("regex", "a+")
    for wrong in (("ebnf", "x"), ("lark", 5)):
        with pytest.raises(errors.InvalidArgument, match="grammar"):
            Grammar(*wrong)  # type: ignore[arg-type]


def test_one_stop_text_needs_no_tuple() -> None:
    assert SamplingParams(stop="end").stop == ("end",)  # type: ignore[arg-type]


def test_parameters_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().top_k = 5  # type: ignore[misc]


def test_every_code_of_the_border_has_its_own_error() -> None:
    codes = [int(code) for code in re.findall(r"LL_E\w+ = (-\d+)", HEADER.read_text())]
    kinds = {type(errors.for_code(code, "why")) for code in codes}
    assert len(codes) == 6
    assert len(kinds) == 6
    assert errors.LocalLLMError not in kinds
    assert type(errors.for_code(-99, "why")) is errors.LocalLLMError
    assert str(errors.for_code(-1, "why")) == "why"


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"── (\w+) .*?(\d{3})  ", str(errors.__doc__)))
    assert {kind.__name__: str(kind.http_status) for kind in errors.LocalLLMError.__subclasses__()} == drawn
    assert issubclass(errors.InvalidArgument, ValueError)
