"""What goes in and what comes out, in the same words for every front end."""

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

FinishReason = Literal["stop", "length", "abort", "error"]


class Message(TypedDict):
    """One turn of a conversation, in the shape that chat templates read."""

    role: str
    content: NotRequired[str | None]
    name: NotRequired[str]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural logarithms of the unmodified softmax."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # the likeliest tokens, best first, as many as were asked for


@dataclass(frozen=True, slots=True)
class Completion:
    text: str
    token_ids: list[int]  # generated, the one that ended it included
    token_logprobs: list[TokenLogprob] | None  # one for each of token_ids; None unless asked for
    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int  # prompt tokens that the prefix cache had already
    seed: int
