"""What may be asked: every field of every request, its type and its range. The one table from which requests are
checked, the OpenAPI document is made, and the tests draw their wrong requests.

A field that is null counts as absent, as does one of NEUTRAL at the value that changes nothing. Any other field that is
not here is refused by name: an answer that silently ignores half of the question is worse than none.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from localllm.server.problems import Problem, invalid

# Fields of OpenAI's interface that may be sent only at the value by which they do nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "annotations": ([],),
    "tool_calls": ([],),
}
_OPAQUE = {"parameters", "schema", "arguments", "metadata", "logit_bias"}  # what these hold is not ours to tidy

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
Token = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class _Strict(Struct, forbid_unknown_fields=True, kw_only=True):
    pass


# ---- messages ----


class TextPart(_Strict, tag_field="type", tag="text"):
    text: str


Content = str | Annotated[list[TextPart], Meta(min_length=1, max_length=10_000)]


class CalledFunction(_Strict):
    name: str
    arguments: str | dict[str, Any] = "{}"


class ToolCall(_Strict):
    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"
    index: Annotated[int, Meta(ge=0, le=255)] = 0


class SystemMessage(_Strict, tag_field="role", tag="system"):
    content: Content
    name: str | UnsetType = UNSET


class DeveloperMessage(_Strict, tag_field="role", tag="developer"):
    content: Content
    name: str | UnsetType = UNSET


class UserMessage(_Strict, tag_field="role", tag="user"):
    content: Content
    name: str | UnsetType = UNSET


class AssistantMessage(_Strict, tag_field="role", tag="assistant"):
    content: Content | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: Annotated[list[ToolCall], Meta(max_length=256)] | UnsetType = UNSET
    name: str | UnsetType = UNSET


class ToolMessage(_Strict, tag_field="role", tag="tool"):
    content: Content
    tool_call_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET


AnyMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


# ---- what all requests for an answer share ----


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False  # padding against eavesdroppers: there is none between here and here


class _Generating(_Strict):
    model: str | UnsetType = UNSET
    stream: bool = False
    stream_options: StreamOptions | UnsetType = UNSET
    max_tokens: Count | UnsetType = UNSET
    n: Annotated[int, Meta(ge=1, le=8)] = 1
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Probability | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | UnsetType = UNSET
    min_p: Probability | UnsetType = UNSET
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)] | UnsetType = UNSET
    presence_penalty: Penalty | UnsetType = UNSET
    frequency_penalty: Penalty | UnsetType = UNSET
    seed: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    stop: StopText | Annotated[list[StopText], Meta(max_length=16)] | UnsetType = UNSET
    logit_bias: Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | UnsetType = UNSET
    ignore_eos: bool = False
    priority: Annotated[int, Meta(ge=0, le=2)] | UnsetType = UNSET
    cache_salt: Annotated[str, Meta(max_length=1024)] = ""
    # These have no effect, which the documentation says.
    user: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    prompt_cache_key: str | UnsetType = UNSET
    safety_identifier: str | UnsetType = UNSET


# ---- functions ----


class FunctionTool(_Strict):
    name: Name
    description: str = ""
    parameters: dict[str, Any] | UnsetType = UNSET
    strict: bool = False  # arguments are held to the schema wherever they can be


class Tool(_Strict, tag_field="type", tag="function"):
    function: FunctionTool


class ChosenFunction(_Strict):
    name: Name


class NamedChoice(_Strict, tag_field="type", tag="function"):
    function: ChosenFunction


# ---- what the answer is held to ----


class TextFormat(_Strict, tag_field="type", tag="text"):
    pass


class JsonObjectFormat(_Strict, tag_field="type", tag="json_object"):
    pass


class NamedSchema(_Strict):
    name: Name
    schema: dict[str, Any]
    description: str = ""
    strict: bool = True  # an answer always keeps to it


class JsonSchemaFormat(_Strict, tag_field="type", tag="json_schema"):
    json_schema: NamedSchema


class GrammarFormat(_Strict, tag_field="type", tag="grammar"):
    syntax: Literal["lark", "gbnf", "regex"]
    grammar: Annotated[str, Meta(min_length=1, max_length=256 << 10)]


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat | GrammarFormat


class ChatRequest(_Generating, kw_only=True):
    messages: Annotated[list[AnyMessage], Meta(min_length=1, max_length=10_000)]
    max_completion_tokens: Count | UnsetType = UNSET
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType = UNSET
    tools: Annotated[list[Tool], Meta(max_length=256)] = []
    tool_choice: Literal["none", "auto", "required"] | NamedChoice = "auto"
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | UnsetType = UNSET


Ids = Annotated[list[Token], Meta(min_length=1)]


class CompletionRequest(_Generating, kw_only=True):
    prompt: str | list[Any]  # text, texts, ids or lists of ids: see prompts_of()
    logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType = UNSET
    response_format: ResponseFormat | UnsetType = UNSET


class TokenizeRequest(_Strict):
    content: Annotated[str, Meta(max_length=4 << 20)]  # which takes some seconds
    model: str | UnsetType = UNSET
    add_special: bool = False
    parse_special: bool = False


class DetokenizeRequest(_Strict):
    tokens: list[Token]
    model: str | UnsetType = UNSET


R = TypeVar("R", bound=Struct)


def read(kind: type[R], values: dict[str, Any]) -> R:
    """The request that an object is. Problem 400 names the first field that is wrong."""
    fields = kind.__struct_fields__
    tidied = {name: item for name, item in _tidy(values).items() if not _is_neutral(name, item, fields)}
    try:
        return msgspec.convert(tidied, kind)
    except msgspec.ValidationError as error:
        raise _problem(str(error)) from None


def _tidy(value: Any) -> Any:
    """Without nulls, and in messages without what says nothing."""
    if isinstance(value, dict):
        return {
            name: item if name in _OPAQUE else _tidy(item)
            for name, item in value.items()
            if item is not None and not ("role" in value and _is_neutral(name, item))
        }
    return [_tidy(item) for item in value] if isinstance(value, list) else value


def _is_neutral(name: str, value: Any, fields: tuple[str, ...] = ()) -> bool:
    return name not in fields and any(
        type(value) is type(neutral) and value == neutral for neutral in NEUTRAL.get(name, ())
    )


_AT = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(.*)`")


def _problem(message: str) -> Problem:
    found = _AT.search(message)
    path = found[1] if found else ""
    sentence = message[: found.start()] if found else message
    unknown = "unknown field" in sentence
    if field := _FIELD.search(sentence):
        path = f"{path}.{field[1]}" if path else field[1]
    if unknown:
        return invalid(f"{path} is not a field that this server knows", path, "unknown_parameter")
    missing = "missing required" in sentence
    return invalid(f"{path}: {sentence}", path or None, "missing_required_parameter" if missing else "invalid_value")


def form_of(request: ChatRequest | CompletionRequest) -> dict[str, Any]:
    """What response_format holds the answer to, as arguments of SamplingParams."""
    wanted = request.response_format
    if isinstance(wanted, JsonObjectFormat):
        return {"json_schema": {"type": "object"}}
    if isinstance(wanted, JsonSchemaFormat):
        return {"json_schema": wanted.json_schema.schema}
    if isinstance(wanted, GrammarFormat):
        return {"grammar": f"/{wanted.grammar}/" if wanted.syntax == "regex" else wanted.grammar}
    return {}


def prompts_of(request: CompletionRequest) -> list[str | list[int]]:
    """The prompts of a completion: one or several, each a text or token ids."""
    prompt = request.prompt
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise invalid("prompt is an empty list", "prompt")
    kinds: tuple[Any, ...] = (list[str], Ids, list[Ids])
    for kind, first in zip(kinds, (str, int, list), strict=True):
        if type(prompt[0]) is first:
            try:
                checked = msgspec.convert(prompt, kind)
            except msgspec.ValidationError as error:
                raise invalid(f"prompt: {_AT.sub('', str(error))}", "prompt") from None
            return [checked] if first is int else checked
    raise invalid("prompt must be a text, a list of texts, a list of token ids or a list of such lists", "prompt")
