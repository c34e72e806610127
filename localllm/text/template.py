"""Chat templates: messages -> the prompt that a model was trained on.

    template = ChatTemplate(source, bos_token="<s>", eos_token="</s>")
    prompt = template.render([{"role": "user", "content": "Hello"}])

A template is code that comes with a model, so it runs in a sandbox in a child process (template_child.py), never here.
One child serves all templates of this process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

from localllm.errors import InvalidArgument, TemplateError
from localllm.text.child import Child

MAX_SOURCE = 1 << 20
MAX_REQUEST = 64 << 20
KEY = "tokenizer.chat_template"

_STRFTIME = re.compile(r"""strftime_now\(\s*(?:"([^"]*)"|'([^']*)')""")


class ChatTemplate:
    """Thread-safe. source: the template in jinja2's language, at most 1 MiB."""

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the chat template has {len(source)} characters; at most {MAX_SOURCE} are allowed")
        self.source = source
        self._tokens = {"bos_token": bos_token, "eos_token": eos_token}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], bos_token: str = "", eos_token: str = "") -> ChatTemplate:
        """The template that a GGUF file carries. Raises TemplateError where it carries none."""
        source = metadata.get(KEY)
        if not isinstance(source, str) or not source.strip():
            raise TemplateError(
                f"this model has no chat template (key {KEY}): give one with --chat-template FILE, or use --raw "
                "to send the prompt as it is"
            )
        return cls(source, bos_token, eos_token)

    @cached_property
    def variables(self) -> frozenset[str]:
        """What the template reads and does not set itself. TemplateError where it is no template."""
        answer = _CHILD.ask(json.dumps({"source": self.source}).encode())
        if "error" in answer:
            raise TemplateError(answer["error"])
        return frozenset(answer["reads"])

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt for a conversation. Raises TemplateError with the template's own sentence or the limit it broke.

        variables are the template's own, such as enable_thinking, and values that JSON can hold. Two are not: `now`, a
        datetime, and `strftime_now`, a function of a date format, set the date that a template writes (default: today).
        """
        now = variables.pop("now") if isinstance(variables.get("now"), datetime) else datetime.now()
        dates = self._dates(variables.pop("strftime_now")) if callable(variables.get("strftime_now")) else {}
        values = {
            **self._tokens, "documents": None, **variables,
            "messages": list(messages), "tools": list(tools) if tools is not None else None,
            "add_generation_prompt": add_generation_prompt,
        }  # fmt: skip
        request = {"source": self.source, "variables": values, "now": now.isoformat(), "dates": dates}
        try:
            body = json.dumps(request).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidArgument(f"messages, tools and variables must be values that JSON can hold: {error}") from None
        if len(body) > MAX_REQUEST:
            raise InvalidArgument(f"messages: {len(body)} bytes as JSON; at most {MAX_REQUEST} are allowed")
        answer = _CHILD.ask(body)
        if "error" in answer:
            raise TemplateError(answer["error"])
        return str(answer["text"])

    def _dates(self, strftime: Callable[[str], str]) -> dict[str, str]:
        formats = {double or single for double, single in _STRFTIME.findall(self.source)}
        return {layout: strftime(layout) for layout in formats}


def prestart() -> None:
    """Start the child process now, without waiting for it, so that the first render need not."""
    _CHILD.prestart()


_CHILD = Child(
    "template_child.py",
    ("jinja2", "markupsafe"),
    "renders chat templates",
    lambda how: TemplateError(f"the chat template {how}"),
)
