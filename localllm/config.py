"""Every option, declared once: a field's default, what it may be, and the sentence of help that all front ends show.

The command line's options and LOCALLLM_<OPTION> variables are derived from these classes, and so is what LLM accepts.
A value is checked where its object is made.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from localllm.errors import InvalidArgument

_HOST = re.compile(r"\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+")
# As browsers write it: in lower case, without a path, and without the port that is the scheme's own.
_ORIGIN = re.compile(
    r"(?!http://.*:80$|https://.*:443$)[a-z][a-z0-9+.-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]+)?|null"
)


class Option(NamedTuple):
    """What is known of an option besides its name and default."""

    help: str
    kind: type  # bool is a switch
    short: str = ""  # "-m"
    metavar: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None  # the smallest value allowed
    most: float | None = None
    many: bool = False  # may be repeated; the value is a tuple


def option(default: Any, sentence: str, kind: type = str, **more: Any) -> Any:
    """A dataclass field that is an option."""
    return field(default=default, metadata={"option": Option(sentence, kind, **more)})


def _max_batch() -> Any:
    return option(32, "most requests in one step", int, metavar="N", least=1, most=4096)


def _kv_memory() -> Any:
    sentence = "bytes of KV cache for all requests; by default context x max-batch, at most half of the free memory"
    return option(None, sentence, int, metavar="BYTES", least=1)


def options_of(cls: type) -> dict[str, tuple[Option, Any]]:
    """Name to (option, default) of a class of this file, in its order."""
    return {f.name: (f.metadata["option"], f.default) for f in fields(cls)}


def check(config: Any) -> None:
    """Raises InvalidArgument naming the first field whose value is not what its option allows; None is always allowed
    where it is the default."""
    for name, (known, default) in options_of(type(config)).items():
        value = getattr(config, name)
        if value is None and default is None:
            continue
        for item in value if known.many else (value,):
            _check_value(name, known, item)


def _check_value(name: str, known: Option, value: Any) -> None:
    numbers = (int, float) if known.kind is float else known.kind
    if not isinstance(value, numbers) or (isinstance(value, bool) and known.kind is not bool):
        raise InvalidArgument(f"{name} must be of type {known.kind.__name__}, not {value!r}")
    if known.choices and value not in known.choices:
        raise InvalidArgument(f"{name} must be one of {', '.join(known.choices)}, not {value!r}")
    if not isinstance(value, int | float):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidArgument(f"{name} must be a finite number, not {value!r}")
    low = known.least is not None and value < known.least
    if low or (known.most is not None and value > known.most):
        bounds = f"at least {known.least}" if known.most is None else f"from {known.least} to {known.most}"
        raise InvalidArgument(f"{name} must be {bounds}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """Where and how wide a model runs: the options that run, chat, serve and bench share."""

    threads: int | None = option(
        None, "CPU threads; by default one per core", int, short="-t", metavar="N", least=1, most=1024
    )
    context: int | None = option(
        None,
        "most tokens of one request; by default the model's own, as memory allows",
        int,
        short="-c",
        metavar="N",
        least=1,
        most=2**31 - 1,
    )
    device: str = option("auto", "where to run", choices=("auto", "cpu", "cuda"))
    kv_type: str = option("f16", "precision of the KV cache", choices=("f16", "bf16", "f32", "q8_0"))

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions(DeviceOptions):
    """All that LLM accepts beside the model."""

    kv_memory: int | None = _kv_memory()
    max_batch: int = _max_batch()
    step_tokens: int = option(
        512, "most tokens of prompts that are computed at once", int, metavar="N", least=1, most=65536
    )
    step_seconds: float | None = option(
        None,
        "what prompts may add to a step while answers are written; by default there is no limit",
        float,
        metavar="S",
        least=0.001,
    )
    prefix_cache: bool = option(True, "share the KV cache of equal beginnings", bool)
    chat_template: str | None = option(None, "jinja2 source to use in place of the model's own chat template")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """Sampling as the command line offers it. Unset is the model's own recommendation, else that of SamplingParams,
    which also knows the bounds."""

    max_tokens: int | None = option(
        None, "most tokens to generate; by default what the context has room for", int, short="-n", metavar="N"
    )
    temperature: float | None = option(None, "randomness; 0 always takes the likeliest token", float, metavar="X")
    top_k: int | None = option(None, "draw from the K likeliest tokens; 0 is off", int, metavar="K")
    top_p: float | None = option(None, "draw from the likeliest that have P of the probability", float, metavar="P")
    min_p: float | None = option(None, "leave out what has less than P of the likeliest's", float, metavar="P")
    repeat_penalty: float | None = option(None, "weaken the last 64 tokens; 1 is off", float, metavar="X")
    presence_penalty: float | None = option(None, "weaken what the answer has already; 0 is off", float, metavar="X")
    frequency_penalty: float | None = option(None, "the same, each time it is there; 0 is off", float, metavar="X")
    seed: int | None = option(None, "makes the answer repeatable; by default a random one", int, metavar="N")
    stop: tuple[str, ...] = option((), "end the answer before this text; repeatable", metavar="TEXT", many=True)
    logprobs: int | None = option(None, "report log probabilities, and the N likeliest tokens'", int, metavar="N")

    def given(self) -> dict[str, Any]:
        """Those that were set, as keyword arguments of LLM's methods."""
        values = {name: getattr(self, name) for name in options_of(type(self))}
        return {name: value for name, value in values.items() if value not in (None, ())}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What only `localllm run` has."""

    model: str | None = option(
        None, "a GGUF file, or user/repo:quant of the Hugging Face cache; by default the bundled one", short="-m"
    )
    prompt: str | None = option(None, "the prompt, if not given as an argument", short="-p", metavar="TEXT")
    file: str | None = option(None, "append a file to the prompt; - is standard input", short="-f", metavar="FILE")
    system: str | None = option(None, "the system message", metavar="TEXT")
    raw: bool = option(False, "continue the prompt as it is, without the chat template", bool)
    json_schema: str | None = option(
        None, "hold the answer to a JSON schema: a file, or the schema itself", metavar="FILE|JSON"
    )
    grammar: str | None = option(None, "hold the answer to a grammar, GBNF or Lark", metavar="FILE")
    chat_template: str | None = option(None, "jinja2 file to use in place of the model's template", metavar="FILE")
    hide_reasoning: bool = option(False, "do not show what the model thinks before it answers", bool)
    stats: bool = option(False, "tell speed and memory on standard error", bool)
    json: bool = option(False, "print the answer, and all about it, as one JSON object", bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What only `localllm bench` has. Lists are numbers with commas between them."""

    prefill: str = option("512", "tokens of the prompts to compute; 0 is none", short="-p", metavar="N,...")
    decode: int = option(64, "tokens that each sequence generates; 0 is none", int, short="-n", metavar="N", least=0,
                         most=2**20)  # fmt: skip
    batch: str = option("1,8,32", "sequences that generate at once", short="-b", metavar="N,...")
    depth: str = option("0", "tokens that a sequence has before it generates", short="-d", metavar="N,...")
    repeats: int = option(5, "measured runs of each test, after one to warm up", int, short="-r", metavar="N", least=1,
                          most=1000)  # fmt: skip
    json: bool = option(False, "print one JSON object", bool)
    profile: bool = option(False, "show the time of each operation of a step as well", bool)

    def __post_init__(self) -> None:
        check(self)
        for name in ("prefill", "batch", "depth"):
            self.numbers(name)

    def numbers(self, name: str) -> tuple[int, ...]:
        """Those of a list."""
        text, (least, most) = getattr(self, name), (1, 4096) if name == "batch" else (0, 2**20)
        words = text.split(",")
        if not all(word.strip().isdecimal() and len(word) < 10 and least <= int(word) <= most for word in words):
            found = repr(text[:100])
            raise InvalidArgument(f"{name} must be numbers from {least} to {most} with commas between, not {found}")
        return tuple(int(word) for word in words)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What only `localllm serve` has."""

    host: str = option("127.0.0.1", "address to listen on; any but loopback needs --api-key", metavar="ADDRESS")
    port: int = option(8080, "port to listen on; 0 takes a free one", int, metavar="N", least=0, most=65535)
    api_key: tuple[str, ...] = option(
        (), "key that clients must send; repeatable, while LOCALLLM_API_KEY is one key", metavar="KEY", many=True
    )
    allow_origin: tuple[str, ...] = option(
        (), "web origin that may use the server besides loopback ones, or *; repeatable", metavar="ORIGIN", many=True
    )
    allow_host: tuple[str, ...] = option(
        (), "name of this server in Host headers besides loopback's; repeatable", metavar="NAME", many=True
    )
    max_batch: int = _max_batch()
    step_seconds: float = option(
        0.1, "seconds that prompts may add to a step while answers are written", float, metavar="S", least=0.001
    )
    max_queue: int = option(256, "most requests that wait; beyond them the answer is 429", int, metavar="N", least=0)
    kv_memory: int | None = _kv_memory()
    access_log: bool = option(False, "print a line of JSON for each request, on standard output", bool)
    grace: float = option(30.0, "seconds that answers get to finish when the server ends", float, metavar="S", least=0,
                          most=604800)  # fmt: skip
    chat_template: str | None = option(None, "jinja2 file to use in place of the model's template", metavar="FILE")

    def __post_init__(self) -> None:
        check(self)
        if not self.host:
            raise InvalidArgument("host must not be empty")
        for key in self.api_key:
            if not key.strip():
                raise InvalidArgument("api_key must not be empty or blank")
        for name in self.allow_host:
            if not _HOST.fullmatch(name):
                raise InvalidArgument(f"allow_host must be a name without scheme, port and path, not {name!r}")
        for origin in self.allow_origin:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise InvalidArgument(
                    f"allow_origin must be * or an origin as browsers write it, in lower case, without a path or the "
                    f"scheme's own port, such as https://app.example or http://localhost:3000, not {origin!r}"
                )
