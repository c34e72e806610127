"""One answer, shown as it comes; its figures; and what Ctrl-C leaves of it."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from localllm.cli.terminal import Printer
from localllm.config import RunOptions
from localllm.errors import LocalLLMError
from localllm.memory import used_memory

if TYPE_CHECKING:
    from localllm.generation import Stream
    from localllm.llm import LLM
    from localllm.messages import Completion, Message

INTERRUPTED = 130


def answer(llm: LLM, prompt: str | Sequence[Message], chosen: RunOptions, sampling: Mapping[str, Any]) -> int:
    """Prints the answer to a prompt or a conversation; returns the exit code."""
    with llm.stream(prompt, **sampling) as stream:
        printer = Printer()
        if chosen.json:
            interrupted = _consume(stream)
            printer.write(json.dumps(_fields(stream.completion), ensure_ascii=False) + "\n")
        else:
            interrupted = show(stream, printer, chosen.hide_reasoning)[1]
        if chosen.stats:
            click.echo(statistics(llm, stream), err=True)
        check(stream.completion)
        return INTERRUPTED if interrupted else 0


def show(stream: Stream, printer: Printer, hide_reasoning: bool) -> tuple[str, bool]:
    """Prints an answer; returns it without its reasoning, and whether Ctrl-C ended it."""
    told: list[str] = []
    thinking = False

    def write(text: str, reasoning: bool) -> None:
        nonlocal thinking
        if not reasoning:
            if thinking:
                printer.end_line()
                printer.write("\n")
            told.append(text)
        thinking = reasoning and not hide_reasoning
        if not reasoning or thinking:
            printer.write(text, dim=reasoning)

    interrupted = False
    try:
        for text in stream:
            for piece in stream.splitter.push(text):
                write(*piece)
    except KeyboardInterrupt:
        stream.close()
        interrupted = True
    for piece in stream.splitter.finish():
        write(*piece)
    printer.end_line()
    return "".join(told), interrupted


def check(completion: Completion) -> None:
    if completion.finish_reason == "error":
        raise LocalLLMError("the model's output is not a number; its file may be damaged")


def statistics(llm: LLM, stream: Stream) -> str:
    """Speed and memory in three lines."""
    done, timing, plan = stream.completion, stream.timing, llm.plan
    lines = []
    if timing.first_token is not None:
        computed = done.prompt_tokens - done.cached_tokens
        lines.append(
            f"prefill  {computed} tokens in {timing.first_token:.3f} s, {_rate(computed, timing.first_token)} tokens/s"
        )
    if timing.rest:
        decoded = len(done.token_ids) - 1
        bandwidth = decoded * llm.bytes_per_token / timing.rest / 1e9
        speed = _rate(decoded, timing.rest)
        lines.append(f"decode   {decoded} tokens in {timing.rest:.3f} s, {speed} tokens/s, {bandwidth:.2f} GB/s")
    own, mapped = used_memory()
    lines.append(f"memory   {plan}; process {own / 1e6:.0f} MB and {mapped / 1e6:.0f} MB of mapped files")
    return "\n".join(lines)


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f}" if seconds > 0 else "?"


def _consume(stream: Stream) -> bool:
    """Waits for the end; tells whether Ctrl-C came first."""
    try:
        stream.read()
    except KeyboardInterrupt:
        stream.close()
        return True
    return False


def _fields(completion: Completion) -> dict[str, Any]:
    """What JSON can hold: a logarithm of zero becomes null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: plain(value) for key, value in dataclasses.asdict(completion).items()}
