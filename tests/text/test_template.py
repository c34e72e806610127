"""Chat templates: the same bytes as transformers wherever it renders, adapted where it fails, errors that tell why."""

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from localllm.errors import ChildError, InvalidArgument, TemplateError
from localllm.text import child as child_module
from localllm.text import template as template_module
from localllm.text.template import ChatTemplate, prestart
from tests.conftest import shared_folder

SHARED = shared_folder()
TEMPLATES = sorted(SHARED.glob("templates/*.jinja")) if SHARED else []
NOW = datetime(2024, 7, 26, 12, 30, 5)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

USER = [{"role": "user", "content": "Hello <b>&'\" \u00e9\u4e2d"}]
SYSTEM = [{"role": "system", "content": "Be brief.\n"}, *USER]
TURNS = [
    *USER,
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHi! "},
    {"role": "user", "content": " How are you?\n"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather <now> & \"here\"",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "It's \u00e9"},
                    "days": {"type": "integer", "enum": [1, 2]},
                },
                "required": ["city"],
            },
        },
    }
]  # fmt: skip


def calling(arguments: Any, content: str | None) -> list[dict[str, Any]]:
    call = {"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return [
        *USER,
        {"role": "assistant", "content": content, "tool_calls": [call]},
        {"role": "tool", "name": "get_weather", "tool_call_id": "abcdef123", "content": '{"t": 20}'},
    ]


CASES: dict[str, tuple[list[dict[str, Any]], Any]] = {
    "user": (USER, None),
    "system": (SYSTEM, None),
    "turns": (TURNS, None),
    "system and turns": ([SYSTEM[0], *TURNS], None),
    "answered": ([*TURNS, {"role": "assistant", "content": "Fine."}], None),
    "reasoning": ([*USER, {"role": "assistant", "content": "Hi", "reasoning_content": "let me see"}, *USER], None),
    "tools": (SYSTEM, TOOLS),
    "call with a dict": (calling({"city": "Z\u00fcrich", "days": 1}, ""), TOOLS),
    "call with a string": (calling('{"city": "Z\u00fcrich"}', ""), TOOLS),
    "call without content": (calling({"city": "Bern"}, None), TOOLS),
    "call and answer": ([*calling({"city": "Bern"}, ""), {"role": "assistant", "content": "20"}, *USER], TOOLS),
    "parts": (
        [{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "you"}]}],
        None,
    ),
}


@pytest.mark.skipif(SHARED is None, reason="no shared test material: set LOCALLLM_TEST_DATA")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
@pytest.mark.parametrize("case", CASES)
def test_the_bytes_of_transformers(path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = pytest.importorskip("transformers.utils.chat_template_utils", reason="needs transformers")

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Frozen":
            return cls(*NOW.timetuple()[:6])

    monkeypatch.setattr(reference, "datetime", Frozen)
    source = path.read_text(encoding="utf-8")
    messages, tools = CASES[case]
    for generation in (True, False):
        for variables in ({}, {"enable_thinking": False}):
            mine = render(ChatTemplate(source, **TOKENS), messages, tools, generation, now=NOW, **variables)
            try:
                (theirs,), _ = reference.render_jinja_template(
                    [copy.deepcopy(messages)], tools=tools, chat_template=source, add_generation_prompt=generation,
                    **TOKENS, **variables,
                )  # fmt: skip
            except Exception:  # whatever a template may raise: nothing to compare with
                assert mine is not None or ("gemma-2" in path.stem and "call" in case)  # no tool may speak there
            else:
                assert mine == theirs


def render(template: ChatTemplate, *args: Any, **variables: Any) -> str | None:
    try:
        return template.render(*args, **variables)
    except TemplateError:
        return None


def of(source: str, messages: Any = USER, **variables: Any) -> str:
    return ChatTemplate(source, "<s>", "</s>").render(messages, **variables)


def test_what_templates_can_use() -> None:
    assert of("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}") == f"<s>{USER[0]['content']}</s>"
    assert of("{{ messages | tojson }}") == json.dumps(USER, ensure_ascii=False)
    assert (
        of("{{ messages[0].role | tojson(indent=2) }}{{ '<\u00e9>' | tojson(ensure_ascii=true) }}")
        == '"user""<\\u00e9>"'
    )
    assert of("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}") == "012"
    assert of("a{% generation %}\nb{% endgeneration %}c") == "abc"
    assert of("  {% if true %}\n  x\n  {% endif %}\n") == "  x\n"
    assert of("{% set n = namespace(a=1) %}{% set n.a = 2 %}{{ n.a }}{{ dict(b=3).b }}") == "23"
    assert (
        of("{{ add_generation_prompt }} {{ tools is none }} {{ x is defined }}", add_generation_prompt=False)
        == "False True False"
    )
    assert of("{{ '{\"a\": [1]}' | from_json }}") == "{'a': [1]}"
    assert of("{{ level }}", level=3) == "3"
    assert (
        of("{{ messages[0].reasoning_content }}{{ messages[0].thinking }}", [{"role": "user", "reasoning": "r"}])
        == "rr"
    )
    assert of("{% set l = [] %}{% set _ = l.append(1) %}{{ l }}") == "[1]"


def test_dates_can_be_frozen() -> None:
    source = "{{ strftime_now('%d %b %Y') }}"
    assert of(source, now=NOW) == "26 Jul 2024"
    assert of(source, strftime_now=lambda layout: f"<{layout}>") == "<%d %b %Y>"
    before = datetime.now()
    assert of(source) in {moment.strftime("%d %b %Y") for moment in (before, datetime.now())}
    assert of("{{ now }}", now="a variable of its own") == "a variable of its own"


def test_the_callers_messages_stay_as_they_are() -> None:
    messages = copy.deepcopy(TURNS)
    assert of("{% set _ = messages.pop() %}{{ messages | length }}", messages) == "2"
    assert messages == TURNS


def test_messages_are_adapted_only_where_the_template_fails() -> None:
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    assert of(strict + "{{ messages[0].content }}", SYSTEM) == f"Be brief.\n\n\n{USER[0]['content']}"
    arguments = "{{ messages[1].tool_calls[0].function.arguments"
    assert of(arguments + ".items() | list }}", calling('{"city": "Bern"}', "")) == "[('city', 'Bern')]"
    assert of(arguments + " + '!' }}", calling({"city": "Bern"}, "")) == '{"city": "Bern"}!'
    assert of(arguments + " }}", calling({"city": "Bern"}, "")) == "{'city': 'Bern'}"
    assert of("{{ messages[0].content + '!' }}", CASES["parts"][0]) == "Hello\nyou!"
    assert of("{{ messages[1].content + '!' }}", calling({}, None)) == "!"
    assert of("{% for tool in tools %}{% endfor %}none") == "none"
    assert of("{{ functions + datetime }}", now=NOW) == "[]2024-07-26"
    with pytest.raises(TemplateError, match="not today"):
        of("{{ raise_exception('not today') }}", SYSTEM)


def several_calls(ids: tuple[str, str] = ("abcdef123", "abcdef124"), **said: Any) -> list[dict[str, Any]]:
    """Two calls in one message, then their results the other way round."""
    calls = [
        {"id": i, "type": "function", "function": {"name": "get_weather", "arguments": {"city": city}}}
        for i, city in zip(ids, ("Bern", "Rome"), strict=True)
    ]
    results = [{"role": "tool", "tool_call_id": i, "content": f"result of {i}"} for i in reversed(ids)]
    return [*USER, {"role": "assistant", "content": "", "tool_calls": calls, **said}, *results, *TURNS[1:]]


ONE_CALL = (
    "{% for m in messages %}{% if m.tool_calls %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one call!') }}"
    "{% endif %}{{ m.content }}<{{ m.tool_calls[0].function.arguments.city }}>"
    "{% elif m.role == 'tool' %}[{{ m.content }}]{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("source", [ONE_CALL, ONE_CALL.replace("> 1", "> 9")], ids=["refuses", "leaves out"])
def test_calls_are_told_one_by_one_to_templates_that_want_them_so(source: str) -> None:
    told = "So:<Bern>[result of abcdef123]<Rome>[result of abcdef124]"
    messages = several_calls(content="So:")
    assert of(source, messages) == told
    for message in messages:
        message.pop("tool_call_id", None)
    assert of(source, messages) == "So:<Bern>[result of abcdef124]<Rome>[result of abcdef123]"  # in turn
    del messages[2:]
    assert of(source, messages) == "So:<Bern><Rome>"


@pytest.mark.skipif(SHARED is None, reason="no shared test material: set LOCALLLM_TEST_DATA")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_templates_that_know_calls_write_all_of_them(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if "tool_calls" not in source:
        return  # such are told of calls in texts
    for ids in (("abcdef123", "abcdef124"), ("call_1", "call_" + "x" * 40)):
        text = ChatTemplate(source, **TOKENS).render(several_calls(ids), TOOLS)
        assert all(word in text for word in ("Bern", "Rome", *(f"result of {i}" for i in ids)))
        assert text == ChatTemplate(source, **TOKENS).render(several_calls(ids), TOOLS)  # ids are made up alike


@pytest.mark.skipif(SHARED is None, reason="no shared test material: set LOCALLLM_TEST_DATA")
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_words_reasoning_and_a_call_in_one_message(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if "tool_calls" not in source:
        return
    messages = calling({"city": "Bern"}, "I look it up.")
    messages[1]["reasoning_content"] = "Bern, then."
    text = ChatTemplate(source, **TOKENS).render(messages, TOOLS)
    assert text.count("Bern, then.") == ("reasoning_content" in source or "message.thinking" in source)
    if "gpt-oss" in path.stem:  # others leave the words out
        assert 0 < text.index("I look it up.") < text.index("Bern, then.") < text.index('{"city": "Bern"}')


def test_ids_of_calls_are_shortened_for_templates_that_want_nine_letters() -> None:
    source = (
        "{% for m in messages %}{% for c in m.tool_calls %}{% if c.id | length != 9 %}{{ raise_exception('nine') }}"
        "{% endif %}{{ c.id }} {% endfor %}{{ m.tool_call_id }} {% endfor %}"
    )
    assert of(source, several_calls()).split() == ["abcdef123", "abcdef124", "abcdef124", "abcdef123"]
    first, second, *results = of(source, several_calls(("call_1", "abcdef124"))).split()
    assert len(first) == 9 and first.isalnum() and second == "abcdef124" and results == [second, first]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{% if %}", "line 1: Expected an expression"),
        ("\n\n{% for %}", "line 3:"),
        ("{{ 'open", "line 1:"),
        ("{{ missing.name }}", "'missing' is undefined"),
        ("{{ messages[0].nothing.more }}", "has no attribute 'nothing'"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ x | nofilter }}", "No filter named 'nofilter'"),
        ("{% include 'x' %}", "no loader for this environment"),
        ("{{ raise_exception('Only " + "x" * 2000 + "') }}", "Only xxxxx"),
    ],
)
def test_errors_tell_the_cause(source: str, sentence: str) -> None:
    with pytest.raises(TemplateError) as caught:
        of(source)
    assert sentence in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_model_without_a_template() -> None:
    for metadata in ({}, {"tokenizer.chat_template": " "}, {"tokenizer.chat_template": 3}):
        with pytest.raises(TemplateError, match=r"no chat template \(key tokenizer.chat_template\).*--raw"):
            ChatTemplate.from_metadata(metadata)
    assert ChatTemplate.from_metadata({"tokenizer.chat_template": "{{ bos_token }}"}, "<s>").render([]) == "<s>"


def test_values_that_are_no_json() -> None:
    with pytest.raises(InvalidArgument, match="JSON"):
        of("x", [{"role": "user", "content": object()}])
    with pytest.raises(InvalidArgument, match="JSON"):
        of("x", level=object())
    assert of("{{ messages[0].content | length }}", [{"role": "user", "content": "\ud800"}]) == "1"


def test_many_threads_share_the_child() -> None:
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(50):
            text = f"{number}/{turn}"
            if of("{{ messages[0].content }}", [{"role": "user", "content": text}]) != text:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_child_sees_nothing_of_ours_and_dies_with_us() -> None:
    program = (
        "import os, signal, sys, time\n"
        "from localllm.text import template\n"
        "template.prestart()\n"
        "print(template.ChatTemplate('{{ 1 }}').render([]), template._CHILD.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "SECRET_OF_PARENT": "x"}
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert parent.stdout is not None
    text, child = parent.stdout.readline().split()
    assert text == "1"
    assert Path(f"/proc/{child}/environ").read_bytes() == b""
    assert sorted(os.listdir(f"/proc/{child}/fd")) == ["0", "1", "2"]
    os.killpg(parent.pid, signal.SIGINT)  # Ctrl-C reaches the whole group of the terminal, but not the child
    parent.wait(10)
    for _ in range(100):
        if not alive(int(child)):
            break
        time.sleep(0.05)
    assert not alive(int(child))


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_child_is_replaced() -> None:
    assert of("{{ 1 }}") == "1"
    process = template_module._CHILD.process
    assert process is not None
    process.send_signal(signal.SIGINT)  # ignored
    assert of("{{ 2 }}") == "2"
    process.kill()
    process.wait()
    assert of("{{ 3 }}") == "3"
    prestart()
    assert of("{{ 4 }}") == "4"


@pytest.mark.parametrize("length", [1, 1 << 20])  # the second does not fit into a pipe
def test_a_stopped_child_is_not_the_templates_fault(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(child_module, "WORK_SECONDS", 0.1)
    assert of("{{ 1 }}") == "1"
    process = template_module._CHILD.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(ChildError, match="does not answer"):
        of("{{ messages[0].content }}", [{"role": "user", "content": "x" * length}])
    assert time.monotonic() - begun < 10
    assert of("{{ 2 }}") == "2"


def test_after_a_fork_each_process_has_its_own_child() -> None:
    assert of("{{ 1 }}") == "1"
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if of("{{ 2 }}") == "2" else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert of("{{ 3 }}") == "3"
