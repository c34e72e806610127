"""Shapes of what is sent, in OpenAI's words; field order is what readers see. UNSET fields are left out."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.json import Encoder

from localllm.engine.sequence import Sampled
from localllm.server.job import Job, Piece

LEAST = -9999.0  # stands for a logarithm of zero, which JSON cannot hold
DONE = b"data: [DONE]\n\n"
encode = Encoder().encode


def event(value: Any) -> bytes:
    return b"data: " + encode(value) + b"\n\n"


class TextEvents:
    """Events that differ in one text alone, encoded once but for it. `example` is such a one, its text empty."""

    def __init__(self, example: Any, field: str) -> None:
        self._before, self._after = event(example).split(b'"%s":""' % field.encode())  # no other text has bare quotes
        self._before += b'"%s":' % field.encode()

    def __call__(self, text: str) -> bytes:
        return self._before + encode(text) + self._after


class Error(Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class Failed(Struct):
    error: Error


class Health(Struct):
    status: str
    failures: int
    last_failure: str | None


class AboutModel(Struct):
    name: str
    context: int
    n_vocab: int
    bytes: int


class Model(Struct):
    id: str
    created: int
    meta: AboutModel
    object: str = "model"
    owned_by: str = "local"


class Models(Struct):
    data: list[Model]
    object: str = "list"


class Tokens(Struct):
    tokens: list[int]


class Content(Struct):
    content: str


class CachedTokens(Struct):
    cached_tokens: int


class Usage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Timings(Struct):
    """As llama.cpp's server gives them: n counts tokens."""

    prompt_n: int
    prompt_ms: float
    prompt_per_second: float | None
    predicted_n: int
    predicted_ms: float
    predicted_per_second: float | None
    cache_n: int


class TopLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Struct):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class Logprobs(Struct):
    content: list[TokenLogprob]
    refusal: None = None  # no answer is marked as one


class FunctionCall(Struct):
    name: str
    arguments: str


class ToolCall(Struct):
    id: str
    function: FunctionCall
    type: str = "function"


class StreamedToolCall(ToolCall, kw_only=True):
    index: int


class Delta(Struct):
    role: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[StreamedToolCall] | UnsetType = UNSET


C = TypeVar("C")


class Chunk(Struct, Generic[C]):
    """An answer, or one event of a streamed one. Its choices are those of a chat or of a completion."""

    id: str
    object: str
    created: int
    model: str
    choices: list[C]
    usage: Usage | UnsetType | None = UNSET
    timings: Timings | UnsetType = UNSET


class ChatChunkChoice(Struct):
    index: int
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: str | None = None


class Message(Struct):
    role: str
    content: str | None
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(Struct):
    index: int
    message: Message
    logprobs: Logprobs | None
    finish_reason: str


class TextLogprobs(Struct):
    """Four lists, one entry each for every token. What is no UTF-8 by itself is named by its bytes."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class TextChoice(Struct):
    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: str | None = None


def whole(reply: Chunk[C], choices: Iterable[C]) -> list[bytes]:
    """A reply with these choices, in pieces to be sent one after the other. `reply` itself has none: each is made and
    encoded before the next, since a large one takes a while, and all of them more memory than the text they become."""
    before, after = encode(reply).split(b'"choices":[]')  # no text has bare quotes
    parts = [before + b'"choices":[']
    for choice in choices:
        parts.append(b"," * (len(parts) > 1) + encode(choice))
    return [*parts, b"]" + after]


def by_choice(job: Job, pieces: Sequence[Piece]) -> list[list[Piece]]:
    own: list[list[Piece]] = [[] for _ in job.choices]
    for piece in pieces:
        own[piece.choice].append(piece)
    return own


def usage(job: Job) -> Usage:
    prompt = sum(len(request.tokens) for request in job.prompts)
    n = len(job.choices) // len(job.prompts)
    cached = sum(choice.answer.handle.cached_tokens for choice in job.choices[::n])
    generated = sum(choice.answer.generated for choice in job.choices)
    return Usage(prompt, generated, prompt + generated, CachedTokens(cached))


def timings(job: Job) -> Timings:
    """Of the whole job: until the first token of any choice, and from there to the last of any."""
    spent = usage(job)
    cached = spent.prompt_tokens_details.cached_tokens
    known = [choice.answer.timing for choice in job.choices if choice.answer.timing.first_token is not None]
    first = min((timing.first_token or 0 for timing in known), default=0.0)
    last = max(((timing.first_token or 0) + (timing.rest or 0) for timing in known), default=0.0)
    computed, rest = spent.prompt_tokens - cached, last - first
    return Timings(
        prompt_n=computed,
        prompt_ms=round(first * 1e3, 3),
        prompt_per_second=_rate(computed, first),
        predicted_n=spent.completion_tokens,
        predicted_ms=round(rest * 1e3, 3),
        predicted_per_second=_rate(spent.completion_tokens - len(job.choices), rest),
        cache_n=cached,
    )


def _rate(count: int, seconds: float) -> float | None:
    return round(count / seconds, 2) if seconds > 0 and count > 0 else None


def token_logprob(sampled: Sampled, token_bytes: Callable[[int], bytes]) -> TokenLogprob:
    raw = token_bytes(sampled.token)
    top = [
        TopLogprob(_shown(token_bytes(token)), max(logprob, LEAST), list(token_bytes(token)))
        for token, logprob in sampled.top
    ]
    return TokenLogprob(_shown(raw), max(sampled.logprob or 0.0, LEAST), list(raw), top)


def token_name(raw: bytes) -> str:
    """A token as completions tell it, which no other has: OpenAI's way for those that are no text of their own."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _shown(raw: bytes) -> str:
    return codecs.decode(raw, "utf-8", "replace")
