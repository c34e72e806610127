"""What may be asked: every field of every request, its type and its range. The one table from which requests are
checked, the OpenAPI document is made, and the tests draw their wrong requests.

A field that is null counts as absent, as does one that is `neutral` in its object, at the values that change nothing.
Any other field that is not here is refused by name: an answer that silently ignores half of the question is worse than
none.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from localllm.params import Grammar, Syntax
from localllm.server.problems import invalid

MOST = 2**31 - 1
Count = Annotated[int, Meta(ge=1, le=MOST)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Name = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
Token = Annotated[int, Meta(ge=0, le=MOST)]


class _Strict(Struct, forbid_unknown_fields=True, kw_only=True):
    neutral: ClassVar[dict[str, tuple[Any, ...] | None]] = {}  # values at which a field does nothing; None: at any
    names: ClassVar[dict[str, str]] = {}  # other names of fields


# ---- messages ----


class TextPart(_Strict):
    neutral: ClassVar = {"cache_control": None}
    type: Literal["text"]  # a tag may be left out where there is but one, a field may not
    text: str


class SaidText(_Strict, tag_field="type", tag="text"):
    neutral: ClassVar = TextPart.neutral
    text: str


class SaidRefusal(_Strict, tag_field="type", tag="refusal"):
    refusal: str


Content = str | Annotated[list[TextPart], Meta(min_length=1, max_length=10_000)]
Said = str | Annotated[list[SaidText | SaidRefusal], Meta(min_length=1, max_length=10_000)]


class CalledFunction(_Strict):
    neutral: ClassVar = {"parsed_arguments": None}  # the openai client's copy of the arguments
    name: str
    arguments: str | dict[str, Any] = "{}"


class ToolCall(_Strict):
    function: CalledFunction
    id: str = ""
    type: Literal["function"] = "function"
    index: Annotated[int, Meta(ge=0, le=255)] = 0


class _Message(_Strict, kw_only=True):
    neutral: ClassVar = {"id": None}
    name: str | UnsetType = UNSET


class SystemMessage(_Message, tag_field="role", tag="system"):
    content: Content


class DeveloperMessage(_Message, tag_field="role", tag="developer"):
    content: Content


class UserMessage(_Message, tag_field="role", tag="user"):
    content: Content


class AssistantMessage(_Message, tag_field="role", tag="assistant"):
    neutral: ClassVar = {
        **_Message.neutral, "parsed": None, "content": ([],), "annotations": ([],), "tool_calls": ([],)
    }  # fmt: skip
    names: ClassVar = {"reasoning": "reasoning_content"}
    content: Said | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: Annotated[list[ToolCall], Meta(max_length=256)] | UnsetType = UNSET


class ToolMessage(_Message, tag_field="role", tag="tool"):
    content: Content
    tool_call_id: str | UnsetType = UNSET


AnyMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


# ---- what all requests for an answer share ----


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False  # padding against eavesdroppers: there is none between here and here


class _Generating(_Strict):
    neutral: ClassVar = {
        "store": (False,), "service_tier": ("auto", "default"), "seed": (-1,), "stop": ("",),
        "repetition_penalty": (1.0,), "cache_prompt": (True,),
    }  # fmt: skip
    model: str | UnsetType = UNSET
    stream: bool = False
    stream_options: StreamOptions | UnsetType = UNSET
    max_tokens: Count | UnsetType = UNSET
    n: Annotated[int, Meta(ge=1, le=8)] = 1
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType = UNSET
    top_p: Probability | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=0, le=MOST)] | UnsetType = UNSET
    min_p: Probability | UnsetType = UNSET
    repeat_penalty: Annotated[float, Meta(ge=0.01, le=100)] | UnsetType = UNSET
    presence_penalty: Penalty | UnsetType = UNSET
    frequency_penalty: Penalty | UnsetType = UNSET
    seed: Annotated[int, Meta(ge=0, extra_json_schema={"maximum": 2**64 - 1})] | UnsetType = UNSET
    stop: StopText | Annotated[list[StopText], Meta(max_length=16)] | UnsetType = UNSET
    logit_bias: Annotated[dict[str, Annotated[float, Meta(ge=-100, le=100)]], Meta(max_length=1024)] | UnsetType = UNSET
    ignore_eos: bool = False
    priority: Annotated[int, Meta(ge=0, le=2)] | UnsetType = UNSET
    cache_salt: Annotated[str, Meta(max_length=1024)] = ""
    # These have no effect, which the documentation says.
    user: str | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    prompt_cache_key: str | UnsetType = UNSET
    prompt_cache_retention: Any = UNSET
    safety_identifier: str | UnsetType = UNSET


# ---- functions ----


class FunctionTool(_Strict):
    name: Name
    description: str = ""
    parameters: dict[str, Any] | UnsetType = UNSET
    strict: bool = False  # arguments are held to the schema wherever they can be


class Tool(_Strict):
    neutral: ClassVar = {"cache_control": None}
    type: Literal["function"]
    function: FunctionTool


class ChosenFunction(_Strict):
    name: Name


class NamedChoice(_Strict):
    type: Literal["function"]
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
    syntax: Syntax
    grammar: Annotated[str, Meta(min_length=1, max_length=256 << 10)]


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat | GrammarFormat


# Variables of chat templates that a conversation and the model's file decide.
RESERVED = ("messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "strftime_now", "self")
Variables = Annotated[
    dict[str, str | int | float | bool | None],
    Meta(max_length=16, extra_json_schema={"propertyNames": {"not": {"enum": list(RESERVED)}}}),
]


class ChatRequest(_Generating, kw_only=True):
    neutral: ClassVar = {
        **_Generating.neutral, "modalities": (["text"],), "functions": ([],), "function_call": ("none", "auto")
    }  # fmt: skip
    messages: Annotated[list[AnyMessage], Meta(min_length=1, max_length=10_000)]
    max_completion_tokens: Count | UnsetType = UNSET
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType = UNSET
    tools: Annotated[list[Tool], Meta(max_length=256)] = []
    tool_choice: Literal["none", "auto", "required"] | NamedChoice = "auto"
    parallel_tool_calls: bool = True
    reasoning_effort: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET
    chat_template_kwargs: Variables = {}
    response_format: ResponseFormat | UnsetType = UNSET


Ids = Annotated[list[Token], Meta(min_length=1)]


class CompletionRequest(_Generating, kw_only=True):
    neutral: ClassVar = {**_Generating.neutral, "best_of": (1,), "echo": (False,), "suffix": ("",)}
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


def form_of(request: ChatRequest | CompletionRequest) -> dict[str, Any]:
    """What response_format holds the answer to, as arguments of SamplingParams."""
    wanted = request.response_format
    if isinstance(wanted, JsonObjectFormat):
        return {"json_schema": {"type": "object"}}
    if isinstance(wanted, JsonSchemaFormat):
        return {"json_schema": wanted.json_schema.schema}
    if isinstance(wanted, GrammarFormat):
        return {"grammar": Grammar(wanted.syntax, wanted.grammar)}
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
            with suppress(msgspec.ValidationError):
                checked = msgspec.convert(prompt, kind)
                return [checked] if first is int else checked
    raise invalid(
        "prompt must be a text, a list of texts, a list of token ids (integers from 0 on) or a list of such lists, "
        "none of them empty",
        "prompt",
    )
