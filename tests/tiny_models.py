"""Tiny random models, written as GGUF with the `gguf` package, for tests that need a model to run.

The weights mean nothing, but the file is a whole one: every key, a byte-level BPE tokenizer of which every text can be
made, control tokens and, if asked for, a chat template. What was written is also returned, decoded by the package.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gguf
import numpy as np

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

# Where a block keeps its half-precision scales, and how many codes' worth its minimum must be to centre the values.
_SCALES = {"Q2_K": (80, 1.5), "Q3_K": (108, None), "Q4_K": (0, 7.5), "Q5_K": (0, 15.5), "Q6_K": (208, None),
           "IQ4_NL": (0, None), "IQ4_XS": (0, None)}  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    """weights by GGUF name: (rows, columns) or (columns,) float64, rows in the file's order (a llama's query and key
    rows are interleaved as llama.cpp's converter leaves them). config has the arguments of write_tiny, completed."""

    weights: dict[str, np.ndarray]
    config: dict[str, Any]
    path: str = field(default="")


def encode_matrix(rng: np.random.Generator, rows: int, cols: int, dtype: str, std: float) -> tuple[Any, np.ndarray]:
    """Random weights of `dtype`: what to hand to GGUFWriter.add_tensor, and the same decoded to float64 (rows, cols).
    Types that the package cannot quantize are drawn as random blocks, of which every one is valid."""
    kind = gguf.GGMLQuantizationType[dtype]
    values = rng.normal(0, std, (rows, cols)).astype(np.float32)
    if dtype == "F32":
        return values, values.astype(np.float64)
    if dtype == "F16":
        return values.astype(np.float16), values.astype(np.float16).astype(np.float64)
    if cols % gguf.GGML_QUANT_SIZES[kind][0]:
        raise ValueError(f"{cols} columns are no whole number of {dtype} blocks")
    raw = _random_blocks(rng, rows, cols, dtype, std) if dtype in _SCALES else gguf.quants.quantize(values, kind)
    return raw, gguf.quants.dequantize(raw, kind).astype(np.float64)


def _random_blocks(rng: np.random.Generator, rows: int, cols: int, dtype: str, std: float) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[dtype]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = rng.integers(0, 256, (rows * cols // block, size), dtype=np.uint8)
    offset, minimum = _SCALES[dtype]
    spread = rng.uniform(0.5, 1.5, (len(raw), 1))

    def set_scales(unit: float) -> None:
        scales = [spread * unit] if minimum is None else [spread * unit, spread * unit * minimum]
        halves = np.concatenate(scales, axis=1).astype(np.float16).view(np.uint8)
        raw[:, offset : offset + halves.shape[1]] = halves

    set_scales(1.0)
    set_scales(std / float(gguf.quants.dequantize(raw, kind).std()))
    return raw.reshape(rows, -1)


def vocabulary(size: int) -> tuple[list[str], list[int], list[str]]:
    """Tokens, their types and merges of a byte-level BPE: the 256 bytes, the control tokens, then pairs."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # GPT-2's printable stand-ins for bytes
    hidden = [b for b in range(256) if b not in shown]
    letters = {**{b: chr(b) for b in shown}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}
    tokens = [letters[b] for b in range(256)] + list(CONTROL_TOKENS)
    if size < len(tokens):
        raise ValueError(f"a vocabulary of {size} cannot hold {len(tokens)} bytes and control tokens")
    small = "etaoinshrdlucmfwypvbgkjqxz"
    pairs = [(letters[32], c) for c in small] + [(a, b) for a in small for b in small]
    pairs = pairs[: size - len(tokens)]
    types = [int(gguf.TokenType.NORMAL)] * 256 + [int(gguf.TokenType.CONTROL)] * len(CONTROL_TOKENS)
    tokens += [a + b for a, b in pairs]
    types += [int(gguf.TokenType.NORMAL)] * len(pairs)
    unused = size - len(tokens)
    tokens += [f"<unused{i}>" for i in range(unused)]
    types += [int(gguf.TokenType.UNUSED)] * unused
    return tokens, types, [f"{a} {b}" for a, b in pairs]


def llama3_factors(head_dim: int, theta: float, scaling: Mapping[str, Any]) -> np.ndarray:
    """The divisors of the rotation frequencies that Llama 3.1's files carry as rope_freqs.weight: (head_dim / 2)."""
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
    turns = scaling["original_max_position_embeddings"] / wavelength
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / (smooth + (1 - smooth) / scaling["factor"])).astype(np.float32)


def _write_rope(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    scaling = config["rope_scaling"]
    if scaling is None:
        return
    if scaling["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config["head_dim"], config["rope_theta"], scaling))
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
    writer.add_rope_scaling_factor(scaling["factor"])
    if "original_max_position_embeddings" in scaling:
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])


def _write_tokenizer(writer: gguf.GGUFWriter, size: int, chat_template: str | None) -> None:
    tokens, types, merges = vocabulary(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if merges:
        writer.add_token_merges(merges)
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(False)
    if chat_template is not None:
        writer.add_chat_template(chat_template)


def _write_numbers(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    writer.add_context_length(config["context"])
    writer.add_embedding_length(config["embd"])
    writer.add_block_count(config["layers"])
    writer.add_feed_forward_length(config["ff"])
    writer.add_head_count(config["heads"])
    writer.add_head_count_kv(config["kv_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["norm_eps"])
    writer.add_vocab_size(config["vocab"])
    if config["sliding_window"]:
        writer.add_sliding_window(config["sliding_window"])


def _shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every weight of the model by name, matrices as (rows, columns)."""
    embd, ff, dim = config["embd"], config["ff"], config["head_dim"]
    q, kv = config["heads"] * dim, config["kv_heads"] * dim
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (config["vocab"], embd), "output_norm.weight": (embd,)}
    if not config["tied"]:
        shapes["output.weight"] = (config["vocab"], embd)
    for layer in range(config["layers"]):
        p = f"blk.{layer}."
        shapes |= {p + "attn_norm.weight": (embd,), p + "ffn_norm.weight": (embd,)}
        shapes |= {p + "attn_q.weight": (q, embd), p + "attn_k.weight": (kv, embd), p + "attn_v.weight": (kv, embd)}
        shapes |= {p + "attn_output.weight": (embd, q)}
        shapes |= {p + "ffn_gate.weight": (ff, embd), p + "ffn_up.weight": (ff, embd)}
        shapes |= {p + "ffn_down.weight": (embd, ff)}
        if config["arch"] == "qwen3":
            shapes |= {p + "attn_q_norm.weight": (dim,), p + "attn_k_norm.weight": (dim,)}
        if config["bias"]:
            shapes |= {p + "attn_q.bias": (q,), p + "attn_k.bias": (kv,), p + "attn_v.bias": (kv,)}
    return shapes


def _write_weights(
    writer: gguf.GGUFWriter, config: Mapping[str, Any], type_of: Callable[[str], str], never: Sequence[int]
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(config["seed"])
    weights: dict[str, np.ndarray] = {}
    for name, shape in _shapes(config).items():
        if len(shape) == 1:
            values = rng.normal(1.0 if "norm" in name else 0.0, 0.2, shape).astype(np.float32)
            writer.add_tensor(name, values)
            weights[name] = values.astype(np.float64)
            continue
        is_head = name == "output.weight" or (config["tied"] and name == "token_embd.weight")
        std = 2 / math.sqrt(shape[1]) if is_head else 1.0
        if name.startswith("blk."):
            std = 1 / math.sqrt(shape[1])
        raw, weights[name] = encode_matrix(rng, *shape, type_of(name), std)
        if name == "output.weight":
            raw[list(never)] = weights[name][list(never)] = 0
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[type_of(name)])
    return weights


def write_tiny(
    path: str | os.PathLike[str],
    arch: str = "llama",
    layers: int = 2,
    embd: int = 64,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int | None = None,
    ff: int = 96,
    vocab: int = 320,
    dtype: str | Callable[[str], str] = "F32",
    tied: bool = False,
    bias: bool | None = None,
    rope_scaling: Mapping[str, Any] | None = None,
    seed: int = 0,
    chat_template: str | None = CHATML,
    context: int = 512,
    rope_theta: float = 10000.0,
    norm_eps: float = 1e-5,
    sliding_window: int = 0,
    metadata: Mapping[str, Any] | None = None,
    split_max_tensors: int = 0,
    never: Sequence[int] = (),
) -> Tiny:
    """Writes a model and returns its weights. dtype is that of all matrices, or a function of a tensor's name. bias is
    of the query, key and value products; by default a qwen2 has it. rope_scaling is a dictionary as in a transformers
    configuration, of rope_type linear, yarn or llama3. metadata adds keys (int, float, bool or str). never are tokens
    that hardly any draw gives, because their rows of an untied head are zero."""
    config = {
        "arch": arch, "layers": layers, "embd": embd, "heads": heads, "kv_heads": kv_heads,
        "head_dim": head_dim or embd // heads, "ff": ff, "vocab": vocab, "tied": tied,
        "bias": arch == "qwen2" if bias is None else bias, "rope_scaling": rope_scaling, "context": context,
        "rope_theta": rope_theta, "norm_eps": norm_eps, "sliding_window": sliding_window, "seed": seed,
    }  # fmt: skip
    writer = gguf.GGUFWriter(os.fspath(path), arch, split_max_tensors=split_max_tensors)
    writer.add_name(f"tiny random {arch}")
    _write_numbers(writer, config)
    for key, value in (metadata or {}).items():
        kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
        kinds[type(value)](key, value)
    _write_tokenizer(writer, vocab, chat_template)
    _write_rope(writer, config)
    weights = _write_weights(writer, config, dtype if callable(dtype) else lambda _: dtype, never)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Tiny(weights, config, os.fspath(path))
