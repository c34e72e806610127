"""Logits against two oracles: transformers in float32, and float64 on the same dequantized weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.model import reference
from tests.model.stepper import Stepper
from tests.tiny_models import Tiny, write_tiny

pytestmark = pytest.mark.every_level

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied, odd sizes": {"tied": True, "heads": 6, "kv_heads": 3, "head_dim": 20, "embd": 72, "ff": 100},
    "one KV head": {"heads": 4, "kv_heads": 1},
    "head wider than its share": {"head_dim": 48},
    "linear rope": {"rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "yarn": {"rope_scaling": YARN},
    "llama3 rope": {"rope_scaling": LLAMA3},
    "sliding window": {"sliding_window": 40},
    "biases": {"bias": True},
}
ARCHS = ("llama", "qwen2", "qwen3")


def relative(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


def random_tokens(count: int, seed: int = 1, vocab: int = 320) -> list[int]:
    tokens: list[int] = np.random.default_rng(seed).integers(0, vocab, count).tolist()
    return tokens


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_models_agree_with_float64(tmp_path: Path, arch: str, shape: str) -> None:
    model = write_tiny(tmp_path / "m.gguf", arch=arch, **SHAPES[shape])
    tokens = random_tokens(150)
    with Stepper(model.path, kv_type="f32", threads=2) as stepper:
        assert relative(stepper.logits(tokens, chunk=64), reference.logits(model, tokens)) < 2e-6


# ---- transformers ----


def transformers_logits(model: Tiny, tokens: list[int]) -> np.ndarray:
    """The same weights in the published implementation, float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    c = model.config
    names = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3"}
    rope = {"rope_theta": c["rope_theta"], "rope_type": "default", **(c["rope_scaling"] or {})}
    settings = {
        "vocab_size": c["vocab"], "hidden_size": c["embd"], "intermediate_size": c["ff"],
        "num_hidden_layers": c["layers"], "num_attention_heads": c["heads"], "num_key_value_heads": c["kv_heads"],
        "head_dim": c["head_dim"], "rms_norm_eps": c["norm_eps"], "tie_word_embeddings": c["tied"],
        "max_position_embeddings": c["context"], "rope_theta": c["rope_theta"], "rope_parameters": rope,
    }  # fmt: skip
    if c["rope_scaling"]:
        settings["rope_scaling"] = rope
    if c["arch"] != "qwen2":
        settings["attention_bias"] = False
    name = names[c["arch"]]
    config = getattr(transformers, name + "Config")(**settings)
    config._attn_implementation = "eager"
    with torch.no_grad():
        net = getattr(transformers, name + "ForCausalLM")(config).eval()
        weights = {hf_name(k): torch.tensor(hf_weight(k, v, c), dtype=torch.float32) for k, v in model.weights.items()}
        missing, unexpected = net.load_state_dict(weights, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"} and (c["tied"] or not missing)
        net.tie_weights()
        logits: np.ndarray = net(torch.tensor([tokens])).logits[0].numpy()
    return logits


def hf_name(name: str) -> str:
    ends = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight"}  # fmt: skip
    parts = {
        "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    }  # fmt: skip
    if name in ends:
        return ends[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{parts[part]}.{kind}"


def hf_weight(name: str, value: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """Llama files interleave the two halves of every query and key head; transformers keeps them apart."""
    if config["arch"] != "llama" or not any(part in name for part in ("attn_q.", "attn_k.")):
        return value
    dim = config["head_dim"]
    split = value.reshape(-1, dim // 2, 2, *value.shape[1:])
    return split.swapaxes(1, 2).reshape(value.shape)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s not in ("sliding window", "biases")])
def test_float32_models_agree_with_transformers(tmp_path: Path, arch: str, shape: str) -> None:
    model = write_tiny(tmp_path / "m.gguf", arch=arch, **SHAPES[shape])
    tokens = random_tokens(150)
    want = transformers_logits(model, tokens)
    with Stepper(model.path, kv_type="f32") as stepper:
        assert relative(stepper.logits(tokens), want) < 1e-4


# ---- quantized weights and KV ----

# Relative error of the logits against float64 on the same dequantized weights, a little above what was measured: the
# activations are 8-bit for quantized types, and random two-layer models amplify that. K types have one scale per 256
# columns, as in llama.cpp, whose error on such models is 2.2 to 2.8 %.
OF_32 = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL")
OF_256 = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS")
QUANTIZED = {"F16": 1e-3, "BF16": 1e-3, **dict.fromkeys(OF_32, 0.02), **dict.fromkeys(OF_256, 0.028)}


@pytest.mark.parametrize("dtype", QUANTIZED)
def test_quantized_models_stay_near_float64(tmp_path: Path, dtype: str) -> None:
    model = write_tiny(tmp_path / "m.gguf", embd=256, heads=8, kv_heads=4, ff=512, dtype=dtype)
    tokens = random_tokens(48)
    with Stepper(model.path) as stepper:
        assert relative(stepper.logits(tokens), reference.logits(model, tokens)) < QUANTIZED[dtype]


@pytest.mark.parametrize(("kv_type", "bound"), [("f32", 2e-6), ("f16", 5e-4), ("bf16", 5e-3), ("q8_0", 1e-2)])
@pytest.mark.parametrize("block_size", [16, 32])
def test_kv_types(tmp_path: Path, kv_type: str, bound: float, block_size: int) -> None:
    model = write_tiny(tmp_path / "m.gguf", arch="qwen3", head_dim=32)
    tokens = random_tokens(100)
    with Stepper(model.path, kv_type=kv_type, block_size=block_size) as stepper:
        assert relative(stepper.logits(tokens), reference.logits(model, tokens)) < bound
