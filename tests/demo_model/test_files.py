"""The two committed GGUF files, read by the gguf package, and the answers of the larger one."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from tools.demo_model import evaluate
from tools.demo_model.tokenizer import CHAT_TEMPLATE, render

MODELS = Path(__file__).parents[2] / "models"
FILES = {"localllm-demo.gguf": (5_000_000, 10_000_000), "localllm-demo-draft.gguf": (800_000, 1_500_000)}


@pytest.mark.parametrize("file", FILES)
def test_metadata_and_tensors(file: str) -> None:
    path = MODELS / file
    assert path.stat().st_size <= 12_000_000
    reader = GGUFReader(path)
    value = {key: field.contents() for key, field in reader.fields.items()}
    assert value["general.architecture"] == "llama"
    assert value["general.license"] == "MIT"
    assert value["llama.context_length"] >= 1024
    assert value["tokenizer.chat_template"] == CHAT_TEMPLATE
    tokens = value["tokenizer.ggml.tokens"]
    assert 2000 <= len(tokens) <= 4096 and len(set(tokens)) == len(tokens)
    assert tokens[value["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"
    assert [t for t, kind in zip(tokens, value["tokenizer.ggml.token_type"], strict=True) if kind == 3] == tokens[:3]
    low, high = FILES[file]
    assert low <= sum(int(t.n_elements) for t in reader.tensors) <= high
    for tensor in reader.tensors:
        matrix = len(tensor.shape) == 2
        assert tensor.tensor_type == (GGMLQuantizationType.Q8_0 if matrix else GGMLQuantizationType.F32)


def test_both_share_one_vocabulary() -> None:
    one, other = (GGUFReader(MODELS / file).fields for file in FILES)
    for key in ("tokens", "merges", "pre"):
        assert one[f"tokenizer.ggml.{key}"].contents() == other[f"tokenizer.ggml.{key}"].contents()


def test_template_renders_what_training_saw() -> None:
    messages = [("system", "Be brief."), ("user", " Hi "), ("assistant", "Hello!"), ("user", "1+1?")]
    template = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(CHAT_TEMPLATE)
    dicts = [{"role": role, "content": text} for role, text in messages]
    for generate in (False, True):
        assert template.render(messages=dicts, add_generation_prompt=generate) == render(messages, generate)


def test_answers_of_the_bundled_model() -> None:
    from localllm import LLM

    with LLM(str(MODELS / "localllm-demo.gguf")) as llm:
        share = evaluate.report(lambda messages: llm.chat(messages, temperature=0.0, max_tokens=200).text)
    assert share >= evaluate.GOAL
