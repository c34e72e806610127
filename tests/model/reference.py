"""The forward pass in numpy float64, written from the papers and short enough to check by eye: the oracle of logits.

Weights come by their GGUF names as tests/tiny_models.py returns them. A llama's query and key rows are interleaved in
the file, so its rotation pairs neighbours; the others rotate halves (Su et al. 2021, RoFormer).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tests.tiny_models import Tiny, llama3_factors


def rope_frequencies(config: dict[str, Any]) -> tuple[np.ndarray, float]:
    """Radians per position of each pair, (head_dim / 2), and the factor on cosine and sine."""
    dim, base, scaling = config["head_dim"], config["rope_theta"], config["rope_scaling"]
    freqs = 1.0 / base ** (np.arange(0, dim, 2) / dim)
    if scaling is None:
        return freqs, 1.0
    factor = scaling["factor"]
    if scaling["rope_type"] == "linear":
        return freqs / factor, 1.0
    if scaling["rope_type"] == "llama3":
        return freqs / llama3_factors(dim, base, scaling), 1.0
    context = scaling["original_max_position_embeddings"]  # YaRN, Peng et al. 2023, section 3.2

    def pair(turns: float) -> float:
        return dim * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(pair(32)), 0), min(math.ceil(pair(1)), dim - 1)
    stretched = np.clip((np.arange(dim // 2) - low) / max(high - low, 0.001), 0, 1)
    return freqs / factor * stretched + freqs * (1 - stretched), 0.1 * math.log(factor) + 1


def norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotate(x: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    """x is (tokens, heads, head_dim); token t stands at position t."""
    freqs, magnitude = rope_frequencies(config)
    angle = np.arange(len(x))[:, None, None] * freqs
    cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if config["arch"] == "llama" else (x[..., :half], x[..., half:])
    first, second = a * cos - b * sin, a * sin + b * cos
    if config["arch"] != "llama":
        return np.concatenate([first, second], -1)
    return np.stack([first, second], -1).reshape(x.shape)


def attend(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int) -> np.ndarray:
    """Causal attention with grouped heads; a token sees `window` tokens, itself included (0: all)."""
    tokens, heads, dim = q.shape
    group = heads // k.shape[1]
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    visible = (distance >= 0) & ((distance < window) if window else True)
    out = np.empty_like(q)
    for h in range(heads):
        scores = np.where(visible, q[:, h] @ k[:, h // group].T / math.sqrt(dim), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, h] = weights / weights.sum(-1, keepdims=True) @ v[:, h // group]
    return out


def logits(model: Tiny, tokens: list[int]) -> np.ndarray:
    """(tokens, vocabulary) float64."""
    w, c = model.weights, model.config
    dim, eps = c["head_dim"], c["norm_eps"]
    x = w["token_embd.weight"][tokens]
    for i in range(c["layers"]):
        p = f"blk.{i}."

        def linear(name: str, x: np.ndarray, p: str = p) -> np.ndarray:
            return x @ w[p + name + ".weight"].T + w.get(p + name + ".bias", 0)

        h = norm(x, w[p + "attn_norm.weight"], eps)
        q, k, v = (linear(n, h).reshape(len(x), -1, dim) for n in ("attn_q", "attn_k", "attn_v"))
        if p + "attn_q_norm.weight" in w:
            q, k = norm(q, w[p + "attn_q_norm.weight"], eps), norm(k, w[p + "attn_k_norm.weight"], eps)
        a = attend(rotate(q, c), rotate(k, c), v, c["sliding_window"])
        x = x + linear("attn_output", a.reshape(len(x), -1))
        h = norm(x, w[p + "ffn_norm.weight"], eps)
        gate = linear("ffn_gate", h)
        x = x + linear("ffn_down", gate / (1 + np.exp(-gate)) * linear("ffn_up", h))
    return norm(x, w["output_norm.weight"], eps) @ w.get("output.weight", w["token_embd.weight"]).T
