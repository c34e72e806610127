"""`localllm run`: one answer to standard output, or a conversation line by line when there is no prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from localllm.cli.inputs import at_terminal, piped_text, read_text
from localllm.cli.options import collect, options
from localllm.config import DeviceOptions, RunOptions, SamplingOptions

if TYPE_CHECKING:
    from localllm.messages import Message


@click.command()
@click.argument("words", nargs=-1, metavar="[[MODEL] PROMPT]")
@options(RunOptions, SamplingOptions, DeviceOptions)
def run(words: tuple[str, ...], **values: Any) -> int:
    """Answer PROMPT, or hold a conversation when there is none. A single argument that ends in .gguf is the MODEL.

    A PROMPT of - is standard input; anything piped in is appended to the prompt. Every option is also the variable
    LOCALLLM_<OPTION>.
    """
    chosen, sampling = collect(RunOptions, values), collect(SamplingOptions, values)
    model, prompt = _model_and_prompt(words, chosen)
    _check(chosen, sampling)
    form = _form(chosen)
    text = _whole_prompt(prompt, chosen)
    if text is None and not at_terminal():
        raise click.UsageError("there is no prompt: give PROMPT, or run this in a terminal for a conversation")
    if text is None and (chosen.raw or chosen.json):
        raise click.UsageError(f"{'--raw' if chosen.raw else '--json'} needs a prompt")

    from localllm.cli.answer import answer
    from localllm.cli.conversation import converse
    from localllm.cli.loading import load

    with load(model, collect(DeviceOptions, values), chosen.chat_template) as llm:
        if text is None:
            return converse(llm, chosen, sampling.given() | form)
        prompt_or_messages: str | list[Message] = text
        if not chosen.raw:
            prompt_or_messages = [*system_messages(chosen.system), {"role": "user", "content": text}]
        return answer(llm, prompt_or_messages, chosen, sampling.given() | form)


def _form(chosen: RunOptions) -> dict[str, Any]:
    """What the answer is held to, as keyword arguments of LLM's methods."""
    if chosen.json_schema is not None and chosen.grammar is not None:
        raise click.UsageError("--json-schema and --grammar cannot both be given")
    if chosen.grammar is not None:
        return {"grammar": read_text(chosen.grammar)}
    if chosen.json_schema is None:
        return {}
    literal = chosen.json_schema.lstrip().startswith("{")
    return {"json_schema": chosen.json_schema if literal else read_text(chosen.json_schema)}


def system_messages(system: str | None) -> list[Message]:
    return [] if system is None else [{"role": "system", "content": system}]


def _model_and_prompt(words: tuple[str, ...], chosen: RunOptions) -> tuple[str | None, str | None]:
    """From the positional arguments and -m, -p. LOCALLLM_MODEL and LOCALLLM_PROMPT give way to arguments."""
    if len(words) > 2:
        raise click.UsageError(f"expected MODEL and PROMPT, found {len(words)} arguments; put the prompt in quotes")
    if len(words) == 2:
        _refuse_twice("model", "-m")
        _refuse_twice("prompt", "-p")
        return words[0], words[1]
    if len(words) == 1 and words[0].lower().endswith(".gguf"):
        _refuse_twice("model", "-m")
        return words[0], chosen.prompt
    if len(words) == 1:
        _refuse_twice("prompt", "-p")
        return chosen.model, words[0]
    return chosen.model, chosen.prompt


def _refuse_twice(name: str, flag: str) -> None:
    source = click.get_current_context().get_parameter_source(name)
    if source is click.core.ParameterSource.COMMANDLINE:
        raise click.UsageError(f"the {name} is given twice: as an argument and by {flag}")


def _check(chosen: RunOptions, sampling: SamplingOptions) -> None:
    if sampling.logprobs is not None and not chosen.json:
        raise click.UsageError("--logprobs needs --json, which shows them")
    if chosen.raw and chosen.system is not None:
        raise click.UsageError("--system needs the chat template, which --raw leaves out")


def _whole_prompt(prompt: str | None, chosen: RunOptions) -> str | None:
    """The prompt, a file, and what is piped in, in this order; None when there is none of them."""
    dashes = [prompt, chosen.file].count("-")
    if dashes > 1:
        raise click.UsageError("standard input can be read only once")
    parts = [read_text("-") if prompt == "-" else prompt, read_text(chosen.file) if chosen.file else None]
    if dashes == 0:
        parts.append(piped_text())
    given = [part for part in parts if part]
    if not given and any(part is not None for part in parts):
        raise click.UsageError("the prompt is empty")
    return "\n\n".join(given) or None
