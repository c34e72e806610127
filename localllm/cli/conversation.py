"""A conversation in a plain terminal: a line from the person, an answer from the model, and so on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from localllm.cli.answer import check, show, statistics
from localllm.cli.terminal import Printer, printable
from localllm.config import RunOptions
from localllm.errors import LocalLLMError

if TYPE_CHECKING:
    from localllm.llm import LLM
    from localllm.messages import Message

PROMPT = "> "
HELP = """\
/clear          forget the conversation
/system TEXT    forget it and start with this system message
/help           this list
/exit           end, as Ctrl-D does
Ctrl-C stops an answer. The arrow keys edit a line and bring back earlier ones."""


def converse(llm: LLM, chosen: RunOptions, sampling: Mapping[str, Any]) -> int:
    """Until Ctrl-D or /exit; returns the exit code."""
    import readline  # noqa: F401  input() edits lines with it once it is imported

    click.echo(f"{printable(llm.name)}: /help tells what can be done here, Ctrl-D ends", err=True)
    conversation = _Conversation(llm, chosen, sampling)
    while True:
        try:
            line = input(PROMPT).strip()
        except KeyboardInterrupt:
            click.echo()
            continue
        except EOFError:
            click.echo()
            return 0
        if line == "/exit":
            return 0
        if line.startswith("/"):
            conversation.command(line)
        elif line:
            conversation.say(line)


class _Conversation:
    def __init__(self, llm: LLM, chosen: RunOptions, sampling: Mapping[str, Any]) -> None:
        self._llm, self._chosen, self._sampling = llm, chosen, sampling
        self._messages: list[Message] = []
        self._start(chosen.system)

    def command(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if name == "/help":
            click.echo(HELP)
        elif name == "/clear":
            self._start(self._system)
        elif name == "/system" and rest.strip():
            self._start(rest.strip())
        else:
            click.echo(f"{name} is not known here; /help lists what is")

    def say(self, text: str) -> None:
        """What fails is told, and the conversation stays as it was before."""
        messages: list[Message] = [*self._messages, {"role": "user", "content": text}]
        try:
            with self._llm.stream(messages, **self._sampling) as stream:
                told, _ = show(stream, Printer(), self._chosen.hide_reasoning)
                check(stream.completion)
                if self._chosen.stats:
                    click.echo(statistics(self._llm, stream), err=True)
        except LocalLLMError as error:
            click.echo(f"localllm: {printable(str(error))}", err=True)
            return
        self._messages = [*messages, {"role": "assistant", "content": told}]

    def _start(self, system: str | None) -> None:
        self._system = system
        self._messages = [] if system is None else [{"role": "system", "content": system}]
