"""Names and row order of the tensors: ours, and those of GGUF's llama architecture."""

from __future__ import annotations

import numpy as np

from .model import Shape

LAYER = {
    "attn_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
    "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down",
}  # fmt: skip


def weight_names(shape: Shape) -> dict[str, str]:
    """GGUF's name of each of our weights."""
    names = {"embed.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    for i in range(shape.layers):
        names |= {f"blocks.{i}.{ours}.weight": f"blk.{i}.{theirs}.weight" for ours, theirs in LAYER.items()}
    return names


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q or k, (heads * dim, width), from rotary halves (i, i + dim/2) to the interleaved pairs (2i, 2i + 1)."""
    return rows.reshape(heads, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of `permuted`."""
    return rows.reshape(heads, -1, 2, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
