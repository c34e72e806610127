"""How tokens are chosen: one frozen value, checked where it is made, so that nobody after has to.

Order of use: mask, logit_bias, penalties, top_k, top_p, min_p, temperature; ties go to the lower token id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal, get_args

from localllm.errors import InvalidArgument

HIGH, NORMAL, LOW = 0, 1, 2  # priority classes
Syntax = Literal["gbnf", "lark", "regex"]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A grammar that says what it is written in. gbnf begins with the rule root, lark with start."""

    syntax: Syntax
    text: str

    def __post_init__(self) -> None:
        if self.syntax not in get_args(Syntax) or not isinstance(self.text, str):
            raise InvalidArgument(f"grammar must be a text in gbnf, lark or regex, not {self!r:.200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Raises InvalidArgument, naming the field, what it may be and what it was."""

    max_tokens: int | None = None  # None: the rest of the context
    temperature: float = 0.8  # 0 is greedy
    top_k: int = 40  # 0 is off
    top_p: float = 0.95  # 1 is off
    min_p: float = 0.05  # 0 is off
    repeat_penalty: float = 1.0  # 1 is off; over the last 64 tokens of prompt and output
    presence_penalty: float = 0.0  # 0 is off; over the output
    frequency_penalty: float = 0.0  # 0 is off; over the output
    seed: int | None = None  # None: a random one, which the Completion tells
    stop: tuple[str, ...] = ()  # texts that end the answer and are not part of it
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id: added to its logit
    logprobs: int | None = None  # report the chosen token's logprob and those of the N likeliest
    json_schema: str | Mapping[str, Any] | None = None
    grammar: str | Grammar | None = None  # a text alone: GBNF, Lark's syntax, or a pattern between slashes
    calls: Sequence[Mapping[str, Any]] = ()  # the answer calls one of these functions, or else fits json_schema
    ignore_eos: bool = False
    priority: int = NORMAL

    def __post_init__(self) -> None:
        self._integer("max_tokens", 1, 2**31 - 1, optional=True)
        self._number("temperature", 0, 100)
        self._integer("top_k", 0, 2**31 - 1)
        self._number("top_p", 0, 1)
        self._number("min_p", 0, 1)
        self._number("repeat_penalty", 0.01, 100)
        self._number("presence_penalty", -100, 100)
        self._number("frequency_penalty", -100, 100)
        self._integer("seed", 0, 2**64 - 1, optional=True)
        self._integer("logprobs", 0, 1024, optional=True)
        self._integer("priority", HIGH, LOW)
        if not isinstance(self.ignore_eos, bool):
            raise InvalidArgument(f"ignore_eos must be true or false, not {self.ignore_eos!r}")
        self._check_stop()
        self._check_bias()
        self._check_calls()

    @property
    def has_form(self) -> bool:
        """Whether the answer is held to anything."""
        return self.json_schema is not None or self.grammar is not None or bool(self.calls)

    def _integer(self, name: str, low: int, high: int, optional: bool = False) -> None:
        value = getattr(self, name)
        if value is None and optional:
            return
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidArgument(f"{name} must be an integer from {low} to {high}, not {value!r}")

    def _number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        good = isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
        if not good:
            raise InvalidArgument(f"{name} must be a number from {low} to {high}, not {value!r}")

    def _check_stop(self) -> None:
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if not isinstance(stop, list | tuple) or not all(isinstance(text, str) and text for text in stop):
            raise InvalidArgument(f"stop must be texts, none of them empty, not {self.stop!r}")
        object.__setattr__(self, "stop", tuple(stop))  # the one normalisation, before anybody can see the value

    def _check_bias(self) -> None:
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidArgument(f"logit_bias must map token ids to numbers, not {self.logit_bias!r}")
        for token, bias in self.logit_bias.items():
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
                raise InvalidArgument(f"logit_bias must map token ids to numbers, but has the key {token!r}")
            if not isinstance(bias, int | float) or not (-1e6 <= bias <= 1e6 or bias == -inf):
                raise InvalidArgument(f"logit_bias[{token}] must be -inf or from -1e6 to 1e6, not {bias!r}")

    def _check_calls(self) -> None:
        good = isinstance(self.calls, list | tuple) and all(isinstance(tool, Mapping) for tool in self.calls)
        if not good or not all(_is_function(tool.get("function", tool)) for tool in self.calls):
            raise InvalidArgument(f"calls must be functions, each with a name and parameters, not {self.calls!r:.200}")


def _is_function(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("name"), str)
