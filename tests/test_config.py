"""Options are declared once, and what is declared is checked."""

from __future__ import annotations

import pytest

from localllm.config import DeviceOptions, ModelOptions, RunOptions, SamplingOptions, ServeOptions, options_of
from localllm.errors import InvalidArgument
from localllm.params import SamplingParams


def test_values_that_are_allowed() -> None:
    options = ModelOptions(threads=2, context=100, device="cpu", kv_type="q8_0", kv_memory=1, prefix_cache=False)
    assert (options.threads, options.max_batch, options.chat_template) == (2, 32, None)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("threads", 0, "from 1 to 1024"),
        ("threads", 2.0, "type int"),
        ("threads", True, "type int"),
        ("context", -5, "context must be from 1"),
        ("device", "tpu", "auto, cpu, cuda"),
        ("device", None, "type str"),
        ("kv_memory", 0, "at least 1"),
        ("prefix_cache", "yes", "type bool"),
        ("step_seconds", float("nan"), "finite"),
        ("step_seconds", float("inf"), "finite"),
    ],
)
def test_values_that_are_not(field: str, value: object, sentence: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"{field}.*{sentence}|{sentence}"):
        ModelOptions(**{field: value})  # type: ignore[arg-type]


def test_sampling_options_are_fields_of_sampling_params() -> None:
    params = set(SamplingParams.__dataclass_fields__)
    assert set(options_of(SamplingOptions)) <= params
    assert SamplingOptions(top_k=0, stop=("x",)).given() == {"top_k": 0, "stop": ("x",)}


def test_names_and_short_flags_are_unique() -> None:
    """They share one command, and one space of LOCALLLM_ variables, of which three mean something else."""
    names: list[str] = []
    flags: list[str] = []
    for cls in (RunOptions, SamplingOptions, DeviceOptions):
        names += options_of(cls)
        flags += [known.short for known, _ in options_of(cls).values() if known.short]
    assert len(set(names)) == len(names)
    assert len(set(flags)) == len(flags)
    assert not {"cpu", "library", "test_data"} & set(names)


def test_every_option_has_a_short_sentence() -> None:
    for cls in (RunOptions, SamplingOptions, ModelOptions, ServeOptions):
        for name, (known, _) in options_of(cls).items():
            assert 10 < len(known.help) < 110, name
            assert not known.help.endswith("."), name


@pytest.mark.parametrize(
    "origin",
    ["https://app.example/", "https://App.example", "HTTPS://app.example", "app.example", "https://app.example/path",
     "http://app.example:80", "https://app.example:443", "https://*.example", "", " ", "https://a b", "https://x@y",
     "https://b\u00fccher.example"],
)  # fmt: skip
def test_origins_that_no_browser_sends(origin: str) -> None:
    with pytest.raises(InvalidArgument, match="allow_origin must be"):
        ServeOptions(allow_origin=("https://app.example", origin))


@pytest.mark.parametrize(
    "origin", ["*", "https://app.example", "http://localhost:3000", "http://[::1]", "app://obsidian.md",
               "chrome-extension://abcdef", "null", "http://app.example:443", "https://xn--bcher-kva.example:8443"],
)  # fmt: skip
def test_origins_that_browsers_send(origin: str) -> None:
    assert ServeOptions(allow_origin=(origin,)).allow_origin == (origin,)


@pytest.mark.parametrize(
    ("field", "value"),
    [("allow_host", ("llm.example:80",)), ("allow_host", ("http://llm.example",)), ("api_key", ("",)),
     ("api_key", (" \t",)), ("host", ""), ("grace", float("inf")), ("grace", float("nan")),
     ("step_seconds", float("nan"))],
)  # fmt: skip
def test_what_a_server_cannot_be_started_with(field: str, value: object) -> None:
    with pytest.raises(InvalidArgument, match=f"^{field} "):
        ServeOptions(**{field: value})  # type: ignore[arg-type]
