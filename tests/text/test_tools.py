"""Calls of functions: found again in what real templates write for them, and in nothing else."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import jsonschema
import pytest

from localllm.text.calls import FORMATS, GENERIC, Call, CallReader, find_calls, formats_of
from localllm.text.template import ChatTemplate
from localllm.text.tools import (
    answer_or_calls,
    call_schema,
    described,
    describes_tools,
    flattened,
    held_calls,
    with_objects,
)
from tests.conftest import shared_folder

_SHARED = shared_folder()
TEMPLATES = sorted((_SHARED / "templates").glob("*.jinja")) if _SHARED else []
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": f"the {name}",
            "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "where"}}},
        },
    }
    for name in ("weather", "time_of_day")
]
ARGUMENTS = {"city": 'Köln "am" Rhein', "days": [1, 2], "more": {"a": {"b": "}]"}}}
NAMES = ["weather", "time_of_day"]


def read(reader: CallReader, text: str, rng: random.Random | None = None) -> tuple[str, list[Call]]:
    """Fed in pieces of random sizes, or whole."""
    shown, at = "", 0
    while at < len(text):
        size = rng.randrange(1, 9) if rng else len(text)
        shown += reader.push(text[at : at + size])
        at += size
    rest, calls = reader.finish()
    return shown + rest, calls


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_what_a_template_writes_for_a_call_is_read_as_that_call(path: Any) -> None:
    source = path.read_text()
    if "tool_calls" not in source:
        assert formats_of(source) == (GENERIC,)
        return
    template = ChatTemplate(source, "<s>", "</s>")
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": ARGUMENTS}}
    asked: list[dict[str, Any]] = [{"role": "user", "content": "what is the weather?"}]
    tools = TOOLS if describes_tools(source) else None
    before = template.render(asked, tools, add_generation_prompt=False)
    after = template.render([*asked, {"role": "assistant", "tool_calls": [call], "content": None}], tools,
                            add_generation_prompt=False)  # fmt: skip
    common = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(before))
    written = after[common:]
    assert "weather" in written
    formats = formats_of(source)
    for seed in range(10):
        begin = min((written.index(o) for f in formats for o in f.opens if o in written), default=written.find("{"))
        shown, calls = read(CallReader(formats, NAMES), written[begin:], random.Random(seed))
        assert [(c.name, json.loads(c.arguments)) for c in calls] == [("weather", ARGUMENTS)], written
        assert re.fullmatch(r"(<[^{}<>]*>|\s)*", shown)  # tokens that end a turn, which no client is shown


HERMES = formats_of("<tool_call>")
CALL = '{"name": "weather", "arguments": {"city": "x"}}'
DEEPSEEK = formats_of("<｜tool▁calls▁begin｜>")
DEEPSEEK_CALL = (
    '<｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{"city": "x"}\n```<｜tool▁call▁end｜>'
)
EXPECTED = Call("weather", '{"city": "x"}')


@pytest.mark.parametrize(
    ("formats", "text", "shown", "count"),
    [
        (HERMES, f"Let me see. <tool_call>\n{CALL}\n</tool_call>", "Let me see. ", 1),
        (HERMES, f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", "", 2),
        (HERMES, CALL, "", 1),
        (HERMES, "<tool_call>{broken", "<tool_call>{broken", 0),
        (HERMES, "a <tool_cal", "a <tool_cal", 0),
        (HERMES, "a < b and <b> {x}", "a < b and <b> {x}", 0),
        (formats_of("[TOOL_CALLS]"), f"[TOOL_CALLS][{CALL}, {CALL}]", "", 2),
        (formats_of("[TOOL_CALLS]"), "[1, 2] are numbers", "[1, 2] are numbers", 0),
        (formats_of("[TOOL_CALLS]"), "[TOOL", "[TOOL", 0),
        (formats_of("<|python_tag|>"), '<|python_tag|>{"name": "weather", "parameters": {"city": "x"}}', "", 1),
        ((GENERIC,), f" \n{CALL}\n", "", 1),
        ((GENERIC,), f"[{CALL}, {CALL}, {CALL}]", "", 3),
        ((GENERIC,), '{"name": "weather", "arguments": "{\\"city\\": \\"x\\"}"}', "", 1),
        ((GENERIC,), '{"name": "Bob", "age": 7}', '{"name": "Bob", "age": 7}', 0),
        ((GENERIC,), '{"name": "unknown", "arguments": {}}', '{"name": "unknown", "arguments": {}}', 0),
        ((GENERIC,), "  ", "  ", 0),
        ((GENERIC,), f"Say {CALL}", f"Say {CALL}", 0),
        (HERMES, f"<tool_call>{CALL}</tool_call> So it is.", " So it is.", 1),
        (HERMES, f"One. <tool_call>{CALL}</tool_call> Two. <tool_call>{CALL}</tool_call>\n Three.",
         "One.  Two. \n Three.", 2),
        (HERMES, f"<tool_call>{CALL}</tool_call><tool_call>{{broken", "<tool_call>{broken", 1),
        (HERMES, f'<tool_call>{{"name": "x", "arguments": {{}}}}</tool_call><tool_call>{CALL}</tool_call>',
         '<tool_call>{"name": "x", "arguments": {}}</tool_call>', 1),
        (formats_of("[TOOL_CALLS]"), f"[TOOL_CALLS][{CALL}]\nDone.", "\nDone.", 1),
        (DEEPSEEK, f"<｜tool▁calls▁begin｜>{DEEPSEEK_CALL}\n{DEEPSEEK_CALL}<｜tool▁calls▁end｜> Done.", " Done.", 2),
        ((GENERIC,), f"{CALL}\n\nI asked.", "\n\nI asked.", 1),
        ((GENERIC,), f"{CALL}, {CALL}", "", 2),
        ((GENERIC,), f"```json\n{CALL}\n```", "", 1),
        ((GENERIC,), f"```\n[{CALL}]\n```\nThat is all.", "\nThat is all.", 1),
        ((GENERIC,), "```json\n{}\n```", "```json\n{}\n```", 0),
        ((GENERIC,), f"```python\n{CALL}", f"```python\n{CALL}", 0),
        ((GENERIC,), '{"name": "weather", "arguments": {"n": NaN}}', '{"name": "weather", "arguments": {"n": NaN}}', 0),
        ((GENERIC,), '{"name": "\\ud83d", "arguments": {}}', '{"name": "\\ud83d", "arguments": {}}', 0),
    ],
)
def test_calls_and_text(formats: Any, text: str, shown: str, count: int) -> None:
    for seed in range(20):
        got, calls = read(CallReader(formats, NAMES), text, random.Random(seed))
        assert (got, calls) == (shown, [EXPECTED] * count)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_calls_are_held_where_the_template_spells_them_out(path: Any) -> None:
    held = held_calls(path.read_text(), TOOLS)
    marks = {"Qwen2.5": "<tool_call>", "Qwen3": "<tool_call>", "Hermes": "<tool_call>", "Mistral": "[TOOL_CALLS]"}
    assert (held[0] if held else None) == next((marks[name] for name in marks if name in path.name), None)
    if held is None:
        return
    validator = jsonschema.Draft202012Validator(held[1])
    validator.check_schema(held[1])
    call = {**json.loads(CALL), **({"id": "abc123XYZ"} if "Mistral" in path.name else {})}
    assert validator.is_valid([call, json.loads(CALL)] if "Mistral" in path.name else call)
    assert not any(map(validator.is_valid, ([], {}, {**call, "name": "other"}, [{**call, "id": "?"}])))


def test_other_calls_behind_the_same_marks_are_not_held() -> None:
    for template in ("<tool_call>\n<function=name>\n<parameter=x>", '{"name": <function-name>, "arguments": <x>}',
                     "[TOOL_CALLS]name[ARGS]{}", '"[TOOL_CALLS]" + name'):  # fmt: skip
        assert held_calls(template, TOOLS) is None


def test_an_answer_or_calls() -> None:
    answer = {"$defs": {"x": {"type": "integer"}}, "type": "object", "properties": {"age": {"$ref": "#/$defs/x"}},
              "required": ["age"], "additionalProperties": False}  # fmt: skip
    schema = answer_or_calls(answer, TOOLS)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    call = json.loads(CALL)
    assert all(map(validator.is_valid, ({"age": 3}, call, [call], [call, call])))
    assert not any(map(validator.is_valid, ({"age": "3"}, [], [{"age": 3}], {**call, "name": "other"}, "x", {})))


@pytest.mark.parametrize(
    "arguments",
    ['{"n": 1e999}', '{"n": -0.10000000000000000000000001}', '{"n":1 ,  "m": [ 12345678901234567890123 ]}',
     '{"s": "\\ud83d \\u00fc \\ud83d\\ude00"}', '{"a": 1, "a": 2}', "{}", '{"n": ' + "9" * 5000 + "}"],
)  # fmt: skip
def test_arguments_are_the_models_own_text(arguments: str) -> None:
    call = f'{{"name": "weather", "arguments": {arguments}}}'
    text = json.dumps({"name": "weather", "parameters": arguments})  # as some models write them
    for written in (call, f"[{call}]", f"<tool_call>{call}</tool_call>", text):
        assert read(CallReader(HERMES, NAMES), written, random.Random(1)) == ("", [Call("weather", arguments)])
    messages: Any = [{"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": arguments}}]}]
    assert flattened(messages) == [{"role": "assistant", "content": call}]


def test_half_a_character_in_escaped_arguments_stays_what_it_was() -> None:
    (call,) = find_calls('{"name": "weather", "arguments": "{\\"s\\": \\"\\ud83d\\"}"}')
    assert call.arguments == '{"s": "\\ud83d"}' and json.loads(call.arguments) == {"s": "\ud83d"}


@pytest.mark.parametrize(
    ("pieces", "shown"),
    [
        (['{"', "age", '": ', "7"], ["", '{"age', '": ', "7"]),
        (["[", " ", "1, ", "2"], ["", "", "[ 1, ", "2"]),
        (['{"name": "', "B", 'ob"'], ["", '{"name": "B', 'ob"']),
        (['{"name": "weather"', ', "age": 3', "}", " yes"], ["", "", '{"name": "weather", "age": 3}', " yes"]),
        (["``", "`py", "thon"], ["", "```py", "thon"]),
        (["```json\n", "[1"], ["", "```json\n[1"]),
    ],
)
def test_json_is_shown_as_soon_as_it_is_no_call(pieces: list[str], shown: list[str]) -> None:
    reader = CallReader((GENERIC,), NAMES)
    assert [reader.push(piece) for piece in pieces] == shown


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("", []),
        ('{"name": "weat', []),
        ('{"name": "other", "arguments": {', []),
        ('{"name": "weather"', [Call("weather", "")]),
        ('{"name": "weather", "argu', [Call("weather", "")]),
        ('{"name": "weather", "arguments": {"city": "x', [Call("weather", '{"city": "x')]),
        ('{"name": "weather", "arguments": {"city": "x"}', [Call("weather", '{"city": "x"}')]),
        (CALL, [EXPECTED]),
    ],
)
def test_a_required_call_is_never_text(text: str, calls: list[Call]) -> None:
    reader = CallReader((GENERIC,), NAMES, required=True)
    assert read(reader, text, random.Random(1)) == ("", calls)
    assert reader.cut == (text != CALL)


def test_text_is_shown_as_soon_as_it_is_no_call() -> None:
    reader = CallReader(HERMES, NAMES)
    assert reader.push("It is") == "It is"
    assert reader.push(" <to") == " "
    assert reader.push("p> of") == "<top> of"


@pytest.mark.parametrize("text", ["{" * 50_000, "[" * 50_000, '{"a":' * 20_000, "[{" * 20_000, '["' * 20_000,
                                  "<tool_call>" * 5_000, CALL * 300])  # fmt: skip
def test_hostile_answers_end_soon(text: str) -> None:
    start = time.process_time()
    find_calls(text)
    read(CallReader(HERMES, NAMES), text, random.Random(1))
    assert time.process_time() - start < 20  # a fraction of a second; what grows with the square takes minutes


def is_within(some: str, text: str) -> bool:
    """Whether the one has nothing that the other has not, in its order."""
    rest = iter(text)
    return all(character in rest for character in some)


def test_fuzz() -> None:
    """Whatever is written: no error, no text lost, no call of what is no function."""
    rng = random.Random(5)
    bits = ["<tool_call>", "</tool_call>", "{", "}", "[", "]", '"name"', ":", '"weather"', ",", '"arguments"', "{}",
            " ", "\\", '"', "x", "\n", "[TOOL_CALLS]", CALL, "```json\n", "to=functions.weather",
            "<|message|>"]  # fmt: skip
    for _ in range(3000):
        text = "".join(rng.choices(bits, k=rng.randrange(1, 12)))
        for formats in ((known, GENERIC) for known in FORMATS):
            shown, calls = read(CallReader(formats, NAMES), text, rng)
            assert calls or shown == text
            assert is_within(shown, text)
            assert all(call.name in NAMES and isinstance(json.loads(call.arguments), dict) for call in calls)


def test_functions_are_described_to_models_that_were_not_taught() -> None:
    user = {"role": "user", "content": "hello"}
    for messages in ([user], [{"role": "system", "content": "be brief"}, user]):
        told = described(messages, TOOLS)  # type: ignore[arg-type]
        assert [m["role"] for m in told] == ["system", "user"]
        assert "time_of_day" in str(told[0]["content"]) and told[-1] == user
    assert "be brief" in str(told[0]["content"])


def test_calls_and_results_as_text() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "x"}'}}
    messages: Any = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]
    plain = flattened(messages)
    assert find_calls(str(plain[1]["content"])) == [EXPECTED] and "tool_calls" not in plain[1]
    assert plain[2] == {"role": "user", "content": "Result of weather: rain"}
    assert flattened(messages[:1] * 2) == messages[:1] * 2  # nothing to write as text, so nothing is joined


def test_arguments_are_objects_where_they_can_be() -> None:
    texts = ['{"n": 1}', "{}", "[1]", "no JSON", r'{"s": "\ud83d"}', '{"n": ' + "9" * 5000 + "}"]
    for form in (lambda call: {"id": "1", "function": call}, lambda call: call):  # type: ignore[no-any-return]
        calls: Any = [form({"name": "weather", "arguments": text}) for text in texts]
        messages: Any = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": calls}]
        given = with_objects(messages)
        told = [call.get("function", call)["arguments"] for call in given[1]["tool_calls"]]
        assert told == [{"n": 1}, {}, *texts[2:]] and given[0] == messages[0]
        assert [call.get("function", call)["arguments"] for call in calls] == texts  # the caller's stay as they are


def test_roles_alternate_where_results_are_text() -> None:
    calls = [{"id": i, "function": {"name": name, "arguments": "{}"}} for i, name in enumerate(NAMES)]
    results = [{"role": "tool", "tool_call_id": str(i), "content": f"r{i}"} for i in range(2)]
    user = {"role": "user", "content": "?"}
    plain = flattened([user, {"role": "assistant", "tool_calls": calls}, *results, user])  # type: ignore[list-item, typeddict-item]
    assert [message["role"] for message in plain] == ["user", "assistant", "user"]
    assert plain[2]["content"] == "Result of weather: r0\n\nResult of time_of_day: r1\n\n?"


def test_the_schema_of_a_call_keeps_references() -> None:
    parameters = {
        "$defs": {"place": {"type": "object", "properties": {"in": {"$ref": "#/$defs/place"}}, "required": ["name"]}},
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/place"}},
        "required": ["city"],
    }
    schema = call_schema([{"function": {"name": "weather", "parameters": parameters}}, *TOOLS[1:]])
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert validator.is_valid({"name": "weather", "arguments": {"city": {"name": 1, "in": {"name": 2}}}})
    assert not validator.is_valid({"name": "weather", "arguments": {"city": {"name": 1, "in": {}}}})
    assert validator.is_valid({"name": "time_of_day", "arguments": {"city": "x"}})
    assert not validator.is_valid({"name": "other", "arguments": {}})
