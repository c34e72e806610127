"""Functions that a model may call: how it is told of them, and how its calls are found in what it writes.

Templates of models trained to call functions describe them and know how calls are written (FORMATS). For any other
template the functions are described in the system message, with one generic form of calls: a JSON object with a name
and arguments, or an array of such. Text that turns out to be no call is text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from localllm.messages import Message
from localllm.text import schemas

MOST_FAILURES = 64  # brackets in an answer that begin no JSON, before the rest is not looked at
_SPELLED = re.compile(r'{\\?"name\\?": <function-name>, \\?"arguments\\?": ')
_LISTED = re.compile(r'"\[TOOL_CALLS\] ?\["')
_JSON = json.JSONDecoder()


class Call(NamedTuple):
    name: str
    arguments: str  # a JSON object


class Format(NamedTuple):
    """How a family of models writes calls: from one of `opens` on, or, where there are none, as the whole answer."""

    opens: tuple[str, ...]
    in_template: str  # by which its templates are known
    marks: tuple[str, ...] = ()  # special tokens that must be seen for calls to be found


GENERIC = Format((), "")
FORMATS = (
    Format(("<tool_call>",), "<tool_call>", ("<tool_call>", "</tool_call>")),  # Hermes, Qwen
    Format(("[TOOL_CALLS]",), "[TOOL_CALLS]", ("[TOOL_CALLS]",)),  # Mistral
    Format(
        ("<｜tool▁calls▁begin｜>",),
        "<｜tool▁calls▁begin｜>",
        (
            "<｜tool▁calls▁begin｜>",
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
            "<｜tool▁calls▁end｜>",
        ),
    ),  # DeepSeek
    Format(("<|python_tag|>",), "<|python_tag|>", ("<|python_tag|>",)),  # Llama 3.1, which also writes plain JSON
    Format(
        ("<|channel|>commentary to=functions.", " to=functions."),
        "<|channel|>commentary",
        ("<|channel|>", "<|constrain|>", "<|message|>", "<|call|>", "<|start|>", "<|end|>"),
    ),  # gpt-oss
)


def formats_of(template: str) -> tuple[Format, ...]:
    """How the model of a template may write calls. Plain JSON is always understood."""
    return (*[known for known in FORMATS if known.in_template in template][:1], GENERIC)


def held_calls(template: str, tools: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, Any]] | None:
    """The mark behind which a model certainly writes calls as JSON, and the schema of what it writes there; None where
    that is not known. Behind <tool_call> some families write XML, behind [TOOL_CALLS] some a bare name: only where the
    template spells the JSON out is it that."""
    if "<tool_call>" in template and _SPELLED.search(template):  # Hermes, Qwen
        return "<tool_call>", call_schema(tools)
    if _LISTED.search(template) and "tool_call.function|tojson" in template:  # Mistral
        identity = {"id": {"type": "string", "pattern": "^[a-zA-Z0-9]{9}$"}}
        return "[TOOL_CALLS]", _several(call_schema(tools, identity), {})
    return None


def describes_tools(template: str) -> bool:
    return re.search(r"\btools\b", template) is not None


def described(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages for a template that knows nothing of functions."""
    lines = "\n".join(json.dumps(tool.get("function", tool), ensure_ascii=False) for tool in tools)
    text = (
        f"You can call these functions:\n{lines}\n"
        'To call one, answer with nothing but JSON of this form: {"name": "the function", "arguments": {...}}. '
        "To call several, put such objects into a JSON array. Otherwise answer as usual."
    )
    first = messages[0] if messages else None
    if first is not None and first["role"] == "system" and isinstance(first.get("content"), str):
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def flattened(messages: Sequence[Message]) -> list[Message]:
    """The messages for a template that would leave out calls and their results: both as text."""
    names: dict[str, str] = {}
    plain: list[Message] = []
    for message in messages:
        if calls := message.get("tool_calls"):
            functions = [call.get("function", call) for call in calls]
            names |= {
                str(call.get("id")): str(function.get("name")) for call, function in zip(calls, functions, strict=True)
            }
            written = [{"name": f.get("name"), "arguments": _plain_arguments(f.get("arguments"))} for f in functions]
            text = json.dumps(written[0] if len(written) == 1 else written, ensure_ascii=False)
            content = message.get("content")
            plain.append({"role": message["role"], "content": f"{content}\n{text}" if content else text})
        elif message["role"] == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id", ""), "the function")
            plain.append({"role": "user", "content": f"Result of {name}: {message.get('content') or ''}"})
        else:
            plain.append(message)
    return plain


def _plain_arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def function_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The function that an entry of `tools` is."""
    function: Mapping[str, Any] = tool.get("function", tool)
    return function


def arguments_schema(tool: Mapping[str, Any], home: str = "#") -> Any:
    """The JSON schema of a function's arguments, ready for a schema in which it lies at `home`."""
    with schemas.about(f'function "{function_of(tool)["name"]}": parameters'):
        return schemas.ready(function_of(tool).get("parameters") or {"type": "object"}, home)


def call_schema(tools: Sequence[Mapping[str, Any]], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON schema of one call of any of these functions, its arguments held to the function's own schema. more:
    properties that a call may have besides. InvalidArgument names the function that is wrong."""
    definitions, calls = {}, []
    for i, tool in enumerate(tools):
        home = f"#/$defs/tool{i}"
        definitions[f"tool{i}"] = arguments_schema(tool, home)
        name = {"const": function_of(tool)["name"]}
        calls.append(
            {
                "type": "object",
                "properties": {"name": name, "arguments": {"$ref": home}, **(more or {})},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"$defs": definitions, "anyOf": calls}


def answer_or_calls(schema: Any, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON schema of an answer that fits `schema`, or else is a call or an array of calls."""
    with schemas.about("json_schema"):
        moved = schemas.ready(schema, "#/$defs/answer")
    several = _several(call_schema(tools), {"answer": moved})
    definitions = several.pop("$defs")
    return {"$defs": definitions, "anyOf": [{"$ref": "#/$defs/answer"}, {"$ref": "#/$defs/call"}, several]}


def _several(call: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """An array of calls, and the definitions that it and others need."""
    definitions = {**call["$defs"], **definitions, "call": {"anyOf": call["anyOf"]}}
    return {"$defs": definitions, "type": "array", "items": {"$ref": "#/$defs/call"}, "minItems": 1}


class CallReader:
    """Feed text to push() and show what it returns; after the last, finish() gives the rest and the calls.

    names: the functions that there are; what names another is text."""

    def __init__(self, formats: Sequence[Format], names: Sequence[str]) -> None:
        self._opens = [mark for known in formats for mark in known.opens]
        self._names = frozenset(names)
        self._held = ""
        self._fresh, self._calling = True, False

    def push(self, text: str) -> str:
        """The text that is no call for certain."""
        self._held += text
        if self._calling:
            return ""
        if self._fresh:
            begun = self._held.lstrip()
            if not begun or any(mark.startswith(begun) for mark in self._opens):
                return ""
            self._fresh, self._calling = False, begun[0] in "{["
            if self._calling:
                return ""
        found = [at for mark in self._opens if (at := self._held.find(mark)) >= 0]
        self._calling = bool(found)
        keep = len(self._held) - min(found) if found else max((_overlap(self._held, m) for m in self._opens), default=0)
        shown = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return shown

    def finish(self) -> tuple[str, list[Call]]:
        held, self._held = self._held, ""
        calls = [call for call in find_calls(held) if call.name in self._names] if self._calling else []
        return ("", calls) if calls else (held, [])


def find_calls(text: str) -> list[Call]:
    """All calls in a text of any of the formats: JSON objects with a name and arguments, alone, in arrays or between
    marks; and those whose name stands before their arguments."""
    calls: list[Call] = []
    at = failures = 0
    while failures < MOST_FAILURES and (start := _next_bracket(text, at)) >= 0:
        try:
            value, at = _JSON.raw_decode(text, start)
        except (ValueError, RecursionError):
            at, failures = start + 1, failures + 1
            continue
        before = _name_before(text[:start])
        if before and isinstance(value, dict):
            calls.append(Call(before, json.dumps(value, ensure_ascii=False)))
            continue
        calls += [call for item in (value if isinstance(value, list) else [value]) if (call := _call(item)) is not None]
    return calls


def _next_bracket(text: str, at: int) -> int:
    found = [i for i in (text.find("{", at), text.find("[", at)) if i >= 0]
    return min(found, default=-1)


def _call(value: Any) -> Call | None:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = _plain_arguments(value.get("arguments", value.get("parameters")))
    if not isinstance(arguments, dict):
        return None
    return Call(value["name"], json.dumps(arguments, ensure_ascii=False))


def _name_before(text: str) -> str:
    """The function named before its arguments: DeepSeek's and gpt-oss's way."""
    mark = text.rfind("<｜tool▁sep｜>")
    if mark >= 0 and text.endswith("```json\n"):
        return text[mark + len("<｜tool▁sep｜>") : -len("```json\n")].strip()
    mark = text.rfind("to=functions.")
    if mark >= 0 and text.endswith("<|message|>"):
        return re.split(r"[\s<]", text[mark + len("to=functions.") :], maxsplit=1)[0]
    return ""


def _overlap(text: str, mark: str) -> int:
    """The length of the longest end of the text that begins the mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if text.endswith(mark[:n])), 0)
