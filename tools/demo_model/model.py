"""The llama architecture in PyTorch, for training the demo models.

Pre-norm blocks of grouped-query attention with rotary positions and a SwiGLU feed-forward layer; the embedding is tied to the output.
Rotary positions pair element i with element i + head_dim/2 (the Hugging Face layout); `export.py` permutes q and k to the
interleaved pairs that GGUF's llama architecture expects. Sources: Touvron et al. 2023 (LLaMA), Su et al. 2021 (RoPE).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of one model; every width is a multiple of 32 so that Q8_0 blocks divide the rows."""

    vocab: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    context: int = 1024
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


def rope_table(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of every position, each (length, head_dim)."""
    half = shape.head_dim // 2
    frequency = shape.rope_base ** (-torch.arange(half, dtype=torch.float32) / half)
    angle = torch.arange(length, dtype=torch.float32)[:, None] * frequency[None, :]
    angle = torch.cat([angle, angle], dim=1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (batch, heads, length, head_dim) by tables that broadcast against it."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Block(nn.Module):
    """One transformer layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv_width = shape.kv_heads * shape.head_dim
        self.attn_norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.q = nn.Linear(shape.width, shape.width, bias=False)
        self.k = nn.Linear(shape.width, kv_width, bias=False)
        self.v = nn.Linear(shape.width, kv_width, bias=False)
        self.o = nn.Linear(shape.width, shape.width, bias=False)
        self.ffn_norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        self.gate = nn.Linear(shape.width, shape.ffn, bias=False)
        self.up = nn.Linear(shape.width, shape.ffn, bias=False)
        self.down = nn.Linear(shape.ffn, shape.width, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: list[Tensor] | None = None
    ) -> Tensor:
        """x is (batch, length, width); `cache`, when given, holds and receives this layer's keys and values."""
        batch, length, width = x.shape
        dim = self.shape.head_dim
        y = self.attn_norm(x)
        q = rotate(self.q(y).view(batch, length, -1, dim).transpose(1, 2), cos, sin)
        k = rotate(self.k(y).view(batch, length, -1, dim).transpose(1, 2), cos, sin)
        v = self.v(y).view(batch, length, -1, dim).transpose(1, 2)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        group = self.shape.heads // self.shape.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        # Written out, because the fused kernel's backward pass is several times slower on short rows.
        scores = (q @ k.mT) * dim**-0.5
        y = scores.masked_fill(~mask, -1e4).softmax(dim=-1) @ v
        x = x + self.o(y.transpose(1, 2).reshape(batch, length, width))
        y = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Token ids to hidden states; `logits` multiplies by the tied embedding."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocab, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.width, eps=shape.norm_eps)
        cos, sin = rope_table(shape, shape.context)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = 0.02 if not name.endswith(("o.weight", "down.weight")) else 0.02 / (2 * shape.layers) ** 0.5
                nn.init.normal_(parameter, std=scale)

    def forward(
        self,
        ids: Tensor,
        documents: Tensor | None = None,
        positions: Tensor | None = None,
        caches: list[list[Tensor]] | None = None,
    ) -> Tensor:
        """Hidden states (batch, length, width) after the last norm.

        ids: (batch, length). documents: (batch, length) numbers; a token sees the earlier ones of its own number. Without
        them a token sees every earlier one, also those of `caches`. positions: (batch, length), counted from 0 when None.
        """
        length = ids.shape[1]
        past = caches[0][0].shape[2] if caches and caches[0] else 0
        if positions is None:
            positions = torch.arange(past, past + length)
        mask = torch.ones(length, past + length, dtype=torch.bool).tril(past)[None]
        if documents is not None:
            mask = mask & (documents[:, :, None] == documents[:, None, :])
        mask = mask[:, None]
        cos, sin = self.get_buffer("cos")[positions], self.get_buffer("sin")[positions]
        if positions.dim() == 2:
            cos, sin = cos[:, None], sin[:, None]
        x = self.embed(ids)
        if torch.is_autocast_enabled("cpu"):
            cos, sin = cos.bfloat16(), sin.bfloat16()
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, mask, None if caches is None else caches[i])
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores (..., vocab) of hidden states (..., width)."""
        return F.linear(hidden, self.embed.weight)

    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
