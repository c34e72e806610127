"""Functions that a model may call: how it is told of them and of earlier calls, and the schemas of calls.

Templates of models trained to call functions describe them and know how calls are written. For any other template the
functions are described in the system message, with one generic form of calls: a JSON object with a name and arguments,
or an array of such. calls.py finds the calls in what a model writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from localllm.messages import Message
from localllm.text import schemas
from localllm.text.calls import is_object

_SPELLED = re.compile(r'{\\?"name\\?": <function-name>, \\?"arguments\\?": ')
_LISTED = re.compile(r'"\[TOOL_CALLS\] ?\["')


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
    """The messages for a template that would leave out calls and their results: both as text. Where there are any,
    neighbours of one role become one message: such templates mostly want roles that alternate."""
    names: dict[str, str] = {}
    plain: list[Message] = []
    for message in messages:
        if calls := message.get("tool_calls"):
            functions = [call.get("function", call) for call in calls]
            names |= {
                str(call.get("id")): str(function.get("name")) for call, function in zip(calls, functions, strict=True)
            }
            written = [_written(function) for function in functions]
            text = written[0] if len(written) == 1 else f"[{', '.join(written)}]"
            content = message.get("content")
            plain.append({"role": message["role"], "content": f"{content}\n{text}" if content else text})
        elif message["role"] == "tool":
            name = message.get("name") or names.get(message.get("tool_call_id", ""), "the function")
            plain.append({"role": "user", "content": f"Result of {name}: {message.get('content') or ''}"})
        else:
            plain.append(message)
    changed = any(own is not message for own, message in zip(plain, messages, strict=True))
    return _joined(plain) if changed else plain


def with_objects(messages: Sequence[Message]) -> list[Message]:
    """The messages for a template that writes calls, arguments that came as JSON given as objects: most templates would
    write such a text as a JSON string, and the others are given a text where an object fails."""
    return [
        {**message, "tool_calls": [_with_object(call) for call in calls]}
        if (calls := message.get("tool_calls"))
        else message
        for message in messages
    ]


def _with_object(call: dict[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    arguments = function.get("arguments")
    if not isinstance(arguments, str) or not is_object(arguments):
        return call
    try:
        function = {**function, "arguments": json.loads(arguments)}
        _json(function).encode()
    except ValueError:  # an integer of thousands of digits, or half of a surrogate pair, which no prompt can hold
        return call
    return {**call, "function": function} if "function" in call else function


def _written(function: Mapping[str, Any]) -> str:
    """A call as text, its arguments as they came."""
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) and is_object(arguments) else _json(arguments)
    return f'{{"name": {_json(function.get("name"))}, "arguments": {text}}}'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _joined(messages: Sequence[Message]) -> list[Message]:
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else None
        texts = [last.get("content"), message.get("content")] if last and last["role"] == message["role"] else [None]
        if all(isinstance(text, str) for text in texts):
            joined[-1] = {**joined[-1], **message, "content": "\n\n".join(map(str, texts))}
        else:
            joined.append(message)
    return joined


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


