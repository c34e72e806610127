"""One request as the engine sees it: a growing list of tokens, of which the first `computed` are in the KV cache.

Knows nothing of text, of memory or of a device. Token and block ids are kept in `array("i")`, which is both a list
that grows and the int32 buffer that the native library reads.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from localllm.messages import FinishReason as FinishReason
from localllm.params import SamplingParams


class State(Enum):
    WAITING = "waiting"  # owns no KV blocks
    RUNNING = "running"  # owns blocks, and catches up with its tokens step by step
    FINISHED = "finished"  # owns no blocks again, unless it was ended in flight, and is never scheduled


class Mask(Protocol):
    """Which tokens may come next: a grammar, for instance."""

    @property
    def closed(self) -> bool:
        """Whether no token was allowed when fill() was last called."""

    def fill(self, bits: memoryview) -> None:
        """Set one bit per token of the vocabulary, the lowest of a byte first: 1 is allowed."""

    def accept(self, token: int) -> None:
        """`token` was drawn."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class Sequence:
    tokens: array[int]  # prompt, then what was generated
    params: SamplingParams
    max_length: int  # of `tokens`; reaching it ends the sequence
    seed: int = 0
    choice: int = 0  # which of a request's answers: (seed, choice, position) names each random number
    stop_tokens: frozenset[int] = frozenset()
    salt: bytes = b""  # cached blocks are shared only among sequences of the same salt
    client: str = ""  # whose it is: clients take turns
    mask: Mask | None = None

    prompt_length: int = field(init=False)
    state: State = field(init=False, default=State.WAITING)
    finish_reason: FinishReason | None = field(init=False, default=None)
    rank: tuple[int, int, int] = field(init=False, default=(0, 0, 0))  # (class, turn, arrival): smaller goes first
    computed: int = field(init=False, default=0)  # tokens[:computed] have their keys and values in `blocks`
    reached: int = field(init=False, default=0)  # the highest `computed` of any step; preemption does not lower it
    cached: int = field(init=False, default=0)  # tokens that it never computed: others had
    blocks: array[int] = field(init=False, default_factory=lambda: array("i"))
    keys: list[bytes] = field(init=False, default_factory=list)  # content keys of the full blocks of `tokens`

    def __post_init__(self) -> None:
        self.prompt_length = len(self.tokens)

    @property
    def pending(self) -> int:
        return len(self.tokens) - self.computed


@dataclass(slots=True)
class Row:
    """What one sequence computes in a step or a pass: tokens[start : start + count], all of its prompt or all of its
    answer."""

    seq: Sequence
    start: int
    count: int
    samples: bool  # the row ends where its sequence ends, so it yields a next token

    @property
    def generated(self) -> bool:
        """All of its tokens were generated, not given: devices may compute these differently."""
        return self.start >= self.seq.prompt_length


class Sampled(NamedTuple):
    """A drawn token. Logprobs are natural logarithms of the unmodified softmax, None unless asked for."""

    token: int  # -1: the row's logits are not finite, or its mask allows no token
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, best first, as many as were asked for
