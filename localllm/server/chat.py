"""/v1/chat/completions: what a chat request asks of the engine, and how its answer is told."""

from __future__ import annotations

import secrets
import string
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import msgspec
from msgspec import UNSET

from localllm.messages import Message as ChatMessage
from localllm.server import wire
from localllm.server.job import Job, Piece
from localllm.server.problems import invalid
from localllm.server.requests import RESERVED, ChatRequest, NamedChoice, Tool, form_of
from localllm.server.service import Service
from localllm.text.calls import Call, CallReader, Format

CHUNK = "chat.completion.chunk"


def _call_id() -> str:
    """Nine letters and digits: all that Mistral's templates take."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


def conversation(request: ChatRequest, template: str) -> list[ChatMessage]:
    """The messages as chat templates read them. A developer's are the system's, unless the template knows better."""
    messages: list[ChatMessage] = []
    for message in request.messages:
        plain: dict[str, Any] = msgspec.to_builtins(message)
        said = [_text(plain.get("content")), plain.pop("refusal", None)]
        if any(text is not None for text in said):
            plain["content"] = "\n".join(text for text in said if text is not None)
        if plain["role"] == "developer" and "developer" not in template:
            plain["role"] = "system"
        if "reasoning_content" in plain and "reasoning_content" not in template and "message.thinking" in template:
            plain["thinking"] = plain.pop("reasoning_content")  # gpt-oss
        messages.append(cast(ChatMessage, plain))
    return messages


def _text(content: str | list[dict[str, str]] | None) -> str | None:
    """A content as one text; None where there is none."""
    if not isinstance(content, list):
        return content
    return "".join(part[part["type"]] for part in content)


class ChatWords:
    """How the answers of a chat are told. One for each request."""

    prefix = "chatcmpl-"

    def __init__(self, service: Service, request: ChatRequest) -> None:
        self._service, self._request = service, request
        self._head = (self.prefix + secrets.token_hex(12), int(time.time()), service.model_id)
        self._usage = request.stream_options is not UNSET and request.stream_options.include_usage
        self._plain: dict[int, wire.TextEvents] = {}  # by choice, once it has begun

    def events(self, pieces: Sequence[Piece]) -> bytes:
        return b"".join([self._event(piece) for piece in pieces])

    def last(self, job: Job) -> bytes:
        identity, created, model = self._head
        if not self._usage:
            return wire.DONE
        told = wire.usage(job), wire.timings(job)
        chunk: wire.Chunk[wire.ChatChunkChoice] = wire.Chunk(identity, CHUNK, created, model, [], *told)
        return wire.event(chunk) + wire.DONE

    def whole(self, job: Job, pieces: Sequence[Piece]) -> list[bytes]:
        identity, created, model = self._head
        choices = (self._choice(i, own) for i, own in enumerate(wire.by_choice(job, pieces)))
        told = wire.usage(job), wire.timings(job)
        reply: wire.Chunk[wire.ChatChoice] = wire.Chunk(identity, "chat.completion", created, model, [], *told)
        return wire.whole(reply, choices)

    def _event(self, piece: Piece) -> bytes:
        plain = self._plain.get(piece.choice)
        if plain is None:
            plain = self._plain[piece.choice] = self._begin(piece.choice)
            delta = wire.Delta(role="assistant")
        elif self._is_plain(piece):
            return plain(piece.text)
        else:
            delta = wire.Delta()
        if piece.reasoning:
            delta.reasoning_content = piece.reasoning
        if piece.calls:
            delta.tool_calls = self._calls(piece.calls)
        if piece.text or (piece.sampled is not None and not piece.reasoning and not piece.calls):
            delta.content = piece.text
        choice = wire.ChatChunkChoice(piece.choice, delta, self._logprobs([piece]), piece.finish or None)
        return wire.event(self._chunk(choice))

    def _is_plain(self, piece: Piece) -> bool:
        """Nothing but a text, as most are."""
        return not (piece.sampled is None or piece.reasoning or piece.calls or piece.finish or self._request.logprobs)

    def _begin(self, index: int) -> wire.TextEvents:
        return wire.TextEvents(self._chunk(wire.ChatChunkChoice(index, wire.Delta(content=""))), "content")

    def _chunk(self, choice: wire.ChatChunkChoice) -> wire.Chunk[wire.ChatChunkChoice]:
        identity, created, model = self._head
        usage = None if self._usage else UNSET
        return wire.Chunk(identity, CHUNK, created, model, [choice], usage)

    def _choice(self, index: int, pieces: Sequence[Piece]) -> wire.ChatChoice:
        reasoning = "".join(piece.reasoning for piece in pieces)
        text = "".join(piece.text for piece in pieces)
        calls = [call for piece in pieces for call in piece.calls]
        message = wire.Message("assistant", text if text or not calls else None, reasoning_content=reasoning or UNSET)
        if calls:
            message.tool_calls = [wire.ToolCall(call.id, call.function) for call in self._calls(calls)]
        return wire.ChatChoice(index, message, self._logprobs(pieces), pieces[-1].finish)

    def _calls(self, calls: Sequence[Call]) -> list[wire.StreamedToolCall]:
        kept = calls if self._request.parallel_tool_calls else calls[:1]
        return [
            wire.StreamedToolCall(_call_id(), wire.FunctionCall(call.name, call.arguments), index=i)
            for i, call in enumerate(kept)
        ]

    def _logprobs(self, pieces: Sequence[Piece]) -> wire.Logprobs | None:
        if not self._request.logprobs:
            return None
        known = [piece.sampled for piece in pieces if piece.sampled is not None]
        if not known:
            return None
        return wire.Logprobs([wire.token_logprob(sampled, self._service.token_bytes) for sampled in known])


def check(request: ChatRequest) -> None:
    """What no single field can tell."""
    if request.top_logprobs and not request.logprobs:
        raise invalid("top_logprobs needs logprobs: true", "top_logprobs")
    limits = {x for x in (request.max_tokens, request.max_completion_tokens) if x is not UNSET}
    if len(limits) > 1:
        raise invalid("max_tokens and max_completion_tokens are the same limit: give one", "max_completion_tokens")
    names = [tool.function.name for tool in request.tools]
    if len(set(names)) < len(names):
        raise invalid("tools: two functions have the same name", "tools")
    chosen = request.tool_choice
    if isinstance(chosen, NamedChoice) and chosen.function.name not in names:
        raise invalid(f"tool_choice: there is no function {chosen.function.name!r} in tools", "tool_choice")
    if chosen == "required" and not names:
        raise invalid("tool_choice required needs tools", "tool_choice")
    if tools_of(request) and "grammar" in form_of(request):
        raise invalid("response_format of type grammar cannot be given with tools that may be called: expected text, "
                      "json_object or json_schema", "response_format")  # fmt: skip


def variables_of(request: ChatRequest, known: Callable[[], frozenset[str]]) -> dict[str, Any]:
    """What the template is given besides the conversation. known: the variables that it reads, if anyone asks."""
    variables = dict(request.chat_template_kwargs)
    for name in variables:
        path = f"chat_template_kwargs.{name}"
        if name in RESERVED:
            raise invalid(f"{path}: this variable is not the request's to set", path)
        if name not in known():
            raise invalid(f"{path}: this model's template knows no such variable", path)
    if request.reasoning_effort is not UNSET:
        if "reasoning_effort" not in known():
            raise invalid("reasoning_effort: this model's template knows none", "reasoning_effort")
        if variables.setdefault("reasoning_effort", request.reasoning_effort) != request.reasoning_effort:
            raise invalid("reasoning_effort: chat_template_kwargs has another one", "reasoning_effort")
    return variables


def tools_of(request: ChatRequest) -> list[dict[str, Any]]:
    """The functions that the answer may call, as templates read them."""
    return [] if request.tool_choice == "none" else [_plain(tool) for tool in request.tools]


def _plain(tool: Tool) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(tool)
    plain["function"].setdefault("parameters", {"type": "object", "properties": {}})
    del plain["function"]["strict"]
    return plain


def reader_of(request: ChatRequest) -> Callable[[Sequence[Format]], CallReader] | None:
    """What finds the calls in an answer; None where none may be called."""
    names = [tool["function"]["name"] for tool in tools_of(request)]
    return partial(CallReader, names=names, required=request.tool_choice != "auto") if names else None


def form_of_answer(request: ChatRequest) -> dict[str, Any]:
    """What the answer is held to: a call where one is required, else its format, or a call where one is possible."""
    tools, form = tools_of(request), form_of(request)
    if isinstance(request.tool_choice, NamedChoice):
        tools = [tool for tool in tools if tool["function"]["name"] == request.tool_choice.function.name]
    elif request.tool_choice != "required":
        return {**form, "calls": tools} if tools and form else form
    return {"calls": tools}


def logprobs_of(request: ChatRequest) -> int | None:
    if not request.logprobs:
        return None
    return 0 if request.top_logprobs is UNSET else request.top_logprobs
