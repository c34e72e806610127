"""`localllm run` and `localllm tokenize` inside this process: arguments, output, exit codes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from localllm import cli
from localllm.cli.answer import show
from localllm.cli.terminal import Printer
from localllm.config import DeviceOptions, RunOptions, SamplingOptions, options_of
from localllm.text.reasoning import FAMILIES, ReasoningSplitter
from tests.tiny_models import write_tiny


class Result(NamedTuple):
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("cli") / "tiny.gguf"
    write_tiny(path)
    return str(path)


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command with what is piped into it."""

    def call(*args: str, piped: bytes | None = None) -> Result:
        if piped is None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(open("/dev/null", "rb")))  # noqa: SIM115
        else:
            (tmp_path / "piped").write_bytes(piped)
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper((tmp_path / "piped").open("rb")))
        with pytest.raises(SystemExit) as exit:
            cli.main(list(args))
        captured = capsys.readouterr()
        assert isinstance(exit.value.code, int)
        return Result(exit.value.code, captured.out, captured.err)

    return call


def answer(command: Command, *args: str, piped: bytes | None = None) -> dict[str, Any]:
    result = command("run", *args, "-n", "4", "--seed", "7", "--json", piped=piped)
    assert (result.code, result.err) == (0, "")
    found: dict[str, Any] = json.loads(result.out)
    return found


# ---- the answer ----


def test_the_answer_goes_to_standard_output(command: Command, model: str) -> None:
    result = command("run", "-m", model, "hello", "-n", "5", "--seed", "1")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith("\n")
    assert len(result.out) > 1


def test_json_has_the_fields_of_a_completion(command: Command, model: str) -> None:
    found = answer(command, "-m", model, "hello", "--logprobs", "2")
    assert list(found) == [
        "text", "token_ids", "token_logprobs", "finish_reason", "prompt_tokens", "cached_tokens", "seed",
    ]  # fmt: skip
    assert found["seed"] == 7
    assert len(found["token_logprobs"][0]["top"]) == 2


def test_text_and_json_tell_the_same(command: Command, model: str) -> None:
    text = command("run", "-m", model, "hello", "-n", "4", "--seed", "7").out
    assert text.rstrip("\n") == answer(command, "-m", model, "hello")["text"].rstrip("\n")


def test_stats_and_logs_go_to_standard_error_and_hold_no_prompt(command: Command, model: str) -> None:
    result = command("run", "-m", model, "zyxwvu", "-n", "4", "--stats", "-v")
    assert result.code == 0
    assert all(word in result.err for word in ("prefill", "decode", "tokens/s", "GB/s", "memory"))
    assert "zyxwvu" not in result.err


def test_a_chat_template_of_a_file(command: Command, model: str, tmp_path: Path) -> None:
    (tmp_path / "t.jinja").write_text("{{ messages[-1].content }}")
    given = answer(command, "-m", model, "hello", "--chat-template", str(tmp_path / "t.jinja"))
    assert given["token_ids"] == answer(command, "-m", model, "hello", "--raw")["token_ids"]


SCHEMA = '{"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": false}'


@pytest.mark.parametrize("as_file", [False, True])
def test_an_answer_held_to_a_schema(command: Command, model: str, tmp_path: Path, as_file: bool) -> None:
    path = tmp_path / "schema.json"
    path.write_text(SCHEMA)
    result = command("run", "-m", model, "--seed", "1", "--json-schema", str(path) if as_file else SCHEMA, "Hi")
    assert result.code == 0 and json.loads(result.out)["n"] in (1, 2)


def test_an_answer_held_to_a_grammar(command: Command, model: str, tmp_path: Path) -> None:
    path = tmp_path / "answer.gbnf"
    path.write_text('root ::= "yes" | "no"')
    result = command("run", "-m", model, "--grammar", str(path), "Hi")
    assert result.code == 0 and result.out.strip() in ("yes", "no")


def test_the_system_message_is_part_of_the_conversation(command: Command, model: str) -> None:
    plain, told = answer(command, "-m", model, "hello"), answer(command, "-m", model, "hello", "--system", "abc")
    assert told["prompt_tokens"] > plain["prompt_tokens"]


# ---- where the prompt comes from ----


@pytest.mark.parametrize(
    ("args", "piped", "prompt"),
    [
        (["one two"], None, "one two"),
        (["-p", "one two"], None, "one two"),
        (["-"], b"one two", "one two"),
        ([], b"one two", "one two"),
        (["one"], b"two", "one\n\ntwo"),
        (["one", "-f", "FILE"], None, "one\n\nfrom a file"),
        (["one", "-f", "FILE"], b"two", "one\n\nfrom a file\n\ntwo"),
        (["one", "-f", "-"], b"two", "one\n\ntwo"),
        (["-f", "FILE"], None, "from a file"),
    ],
)
def test_prompts(
    command: Command, model: str, tmp_path: Path, args: list[str], piped: bytes | None, prompt: str
) -> None:
    (tmp_path / "f.txt").write_text("from a file")
    args = [str(tmp_path / "f.txt") if arg == "FILE" else arg for arg in args]
    expected = answer(command, "-m", model, "--raw", prompt)
    assert answer(command, "-m", model, "--raw", *args, piped=piped) == expected


def test_two_arguments_are_model_and_prompt(command: Command, model: str) -> None:
    assert answer(command, model, "hello") == answer(command, "-m", model, "hello")


def test_an_argument_that_names_a_file_is_the_model(command: Command, model: str) -> None:
    assert answer(command, model, "-p", "hello") == answer(command, "-m", model, "hello")


def test_every_option_is_a_variable_too(command: Command, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = answer(command, "-m", model, "hello", "--temperature", "0", "--stop", "x")
    monkeypatch.setenv("LOCALLLM_MODEL", model)
    monkeypatch.setenv("LOCALLLM_TEMPERATURE", "0")
    monkeypatch.setenv("LOCALLLM_STOP", "x")
    assert answer(command, "hello") == expected
    assert command("run", "hello", "-n", "1", "--temperature", "-1").code == 1  # the command line goes first


def test_options_are_those_of_config(command: Command) -> None:
    declared = {name for cls in (RunOptions, SamplingOptions, DeviceOptions) for name in options_of(cls)}
    params = {p.name for p in cli.localllm.get_command(None, "run").params}  # type: ignore[arg-type, union-attr]
    assert params == declared | {"words", "verbose"}


# ---- what goes wrong ----


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["run"], "no prompt"),
        (["run", "a", "b", "c"], "3 arguments"),
        (["run", "model.gguf", "-m", "model.gguf"], "the model is given twice"),
        (["run", "hello", "-p", "hello"], "twice"),
        (["run", "m", "hello", "-m", "m"], "twice"),
        (["run", "--raw", "--system", "x", "hello"], "--raw"),
        (["run", "--logprobs", "1", "hello"], "--json"),
        (["run", "--json-schema", "{}", "--grammar", "g", "hello"], "both"),
        (["run", "-f", "-", "-"], "only once"),
        (["run", "hello", "--device", "abacus"], "abacus"),
        (["run", "hello", "--top-k", "many"], "many"),
        (["run", ""], "empty"),
        (["walk"], "No such command"),
        (["tokenize", "m"], "no text"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(command: Command, args: list[str], sentence: str) -> None:
    result = command(*args)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["-m", "nowhere.gguf", "hello"], "nowhere.gguf"),
        (["-m", "MODEL", "hello", "-c", "9999"], "9999"),
        (["-m", "MODEL", "hello", "--temperature", "-1"], "temperature"),
        (["-m", "MODEL", "hello", "-c", "10"], "context"),
        (["-m", "MODEL", "hello", "--chat-template", "nowhere.jinja"], "nowhere.jinja"),
        (["-m", "MODEL", "hello", "-f", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_an_error_is_one_sentence_and_exits_with_1(
    command: Command, model: str, args: list[str], sentence: str
) -> None:
    result = command("run", *[model if arg == "MODEL" else arg for arg in args])
    assert (result.code, result.out) == (1, "")
    assert sentence in result.err
    assert result.err.startswith("localllm: ")
    assert result.err.count("\n") == 1


def test_a_wrong_value_of_an_option_is_wrong_usage(command: Command) -> None:
    result = command("run", "hello", "-t", "0")
    assert (result.code, result.out) == (2, "")
    assert "Error: --threads must be from 1 to 1024, not 0" in result.err


def test_input_that_is_not_text_is_an_error(command: Command, model: str) -> None:
    result = command("run", "-m", model, "-", piped=b"\xff\xfe\x00")
    assert (result.code, result.out) == (1, "")
    assert "not UTF-8" in result.err


def test_verbose_shows_the_traceback(command: Command) -> None:
    result = command("run", "-v", "-m", "nowhere.gguf", "hello")
    assert result.code == 1
    assert "Traceback" in result.err


@pytest.fixture(autouse=True)
def quiet_again() -> Iterator[None]:
    import logging

    yield
    logging.getLogger("localllm").setLevel(logging.NOTSET)


def test_a_model_without_a_template_points_to_raw(command: Command, tmp_path: Path) -> None:
    write_tiny(tmp_path / "bare.gguf", chat_template=None)
    result = command("run", "-m", str(tmp_path / "bare.gguf"), "hello")
    assert result.code == 1
    assert "--raw" in result.err
    assert command("run", "-m", str(tmp_path / "bare.gguf"), "hello", "--raw", "-n", "2").code == 0


# ---- reasoning, tokens, help ----


class Pieces:
    """A stream that says what it is told to."""

    def __init__(self, *pieces: str) -> None:
        self.splitter = ReasoningSplitter(FAMILIES[0])
        self._pieces = iter(pieces)
        self.closed = False

    def __iter__(self) -> Iterator[str]:
        for piece in self._pieces:
            if piece == "^C":
                raise KeyboardInterrupt
            yield piece

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(("hide", "expected"), [(False, "hm, 2\n\nfour\n"), (True, "four\n")])
def test_reasoning_stands_apart_or_is_hidden(hide: bool, expected: str) -> None:
    file = io.StringIO()
    told = show(Pieces("<thi", "nk>\nhm", ", 2\n</th", "ink>\n\nfo", "ur"), Printer(file), hide)  # type: ignore[arg-type]
    assert told == ("four", False)
    assert file.getvalue() == expected


def test_ctrl_c_keeps_what_was_said() -> None:
    file, stream = io.StringIO(), Pieces("one ", "two", "^C", "three")
    assert show(stream, Printer(file), False) == ("one two", True)  # type: ignore[arg-type]
    assert file.getvalue() == "one two\n"
    assert stream.closed


def test_tokenize_shows_ids_and_pieces(command: Command, model: str) -> None:
    found = json.loads(command("tokenize", model, "the é<|im_end|>", "--json").out)
    assert found["ids"][-1] == 258
    assert "".join(found["pieces"][:-1]).startswith("the")
    lines = command("tokenize", model, "ab").out.splitlines()
    assert [line.split()[0] for line in lines] == ["97", "98"]
    assert command("tokenize", model, piped=b"ab").out.splitlines() == lines


def test_help_lists_what_is_built_and_nothing_else(command: Command) -> None:
    result = command("--help")
    assert result.code == 0
    listed = [line.split()[0] for line in result.out.partition("Commands:")[2].splitlines() if line.strip()]
    assert listed == list(cli.COMMANDS)
    assert command("run", "--help").code == 0
    assert command("--version").out.startswith("localllm 0.")
