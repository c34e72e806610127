"""Answers of gpt-oss (Harmony, see channels.py) that must have a form: one grammar over all of an answer's messages.

It begins behind <|start|>assistant: messages of reasoning, as many as the model likes, then one message in the form: an
answer in the channel final, or a call, whose head stands in either of the two orders that models write. Messages for
people in between are left out, so that nothing but the form comes after the reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from localllm.text import forms
from localllm.text.channels import BODY, ENDS
from localllm.text.tokenizer import Tokenizer


def answer(tokenizer: Tokenizer, form: forms.Part | None, calls: Mapping[str, forms.Part]) -> str:
    """The source of a form, of one of some functions' calls, by name with the form of their arguments, or of either."""
    channel, constrain, body, end, start = (
        _mark(tokenizer, text) for text in ("<|channel|>", "<|constrain|>", BODY, ENDS[0], "<|start|>")
    )
    rules = [f'begun: {channel} "analysis" {body} {_reasoning(end)} {start} "assistant"']
    rules.append(f'json: " "? {constrain} "json" | " json"')
    parts: list[forms.Part] = []
    ways: list[str] = []
    if form is not None:
        ways.append("final")
        rules.append(f'final: {channel} "final" {"json? " if "json_schema" in form else ""}{body} @form')
        parts.append(forms.named("form", form))
    for i, (name, arguments) in enumerate(calls.items()):
        ways.append(f"call{i}")
        to = json.dumps(f" to=functions.{name}", ensure_ascii=False)
        heads = f'({channel} "commentary" {to} json? | {to} {channel} "commentary" json?)'
        rules.append(f"call{i}: {heads} {body} @arguments{i}")
        parts.append(forms.named(f"arguments{i}", arguments))
    lines = [f"start: begun* ({' | '.join(ways)})", *rules, *_terminals(end)]
    return forms.whole({"lark_grammar": "\n".join(lines)}, *parts)


def _mark(tokenizer: Tokenizer, text: str) -> str:
    """A special token where the vocabulary has it, else the text of its name."""
    ids = tokenizer.encode(text, add_special=False, parse_special=True)
    return f"<[{ids[0]}]>" if len(ids) == 1 and tokenizer.is_special(ids[0]) else json.dumps(text)


def _reasoning(end: str) -> str:
    return f"REASONING {end}" if end.startswith("<[") else "REASONING"


def _terminals(end: str) -> list[str]:
    """Text in which no mark ends a message, for that is how it is read. Where the end is no token of its own it belongs
    to the terminal: a text that may go on for ever would take it in. (A complement alone would match tokens, too, that
    are no text.)"""
    marks = "|".join(mark.replace("|", r"\|") for mark in ENDS)
    last, more = ("", "*") if end.startswith("<[") else (ENDS[0].replace("|", r"\|"), "+")
    return [f"REASONING: /(?s:.*){last}/ & ~/(?s:.*)({marks})(?s:.{more})/"]
