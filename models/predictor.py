"""Predictors: the next embedding from this one and an action chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..registry import Registry
from .linear import Linear

HEAD = 64
"""Width of an attention head."""


def _step(predictor: nn.Module, z: Tensor, chunk: Tensor) -> Tensor:
    return predictor(z, chunk)


step = cast(Callable[[nn.Module, Tensor, Tensor], Tensor], torch.compiler.nested_compile_region(_step))
"""A predictor's next z (…, D). Compilation looks at it once, not anew for each model step of each iteration of a plan,
which took minutes."""


class Block(nn.Module):
    """Pre-norm residual perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = Linear(width, width)
        self.contract = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.contract(F.silu(self.expand(self.norm(x))))


class ResidualPredictor(nn.Module):
    """z (…, D), chunk (…, K A) to the next z (…, D): z plus a learned change, zero before training."""

    def __init__(self, latent: int, chunk_size: int, width: int = 384, depth: int = 2) -> None:
        super().__init__()
        self.embed_latent = Linear(latent, width)
        self.embed_action = Linear(chunk_size, width, bias=False)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.change = Linear(width, latent)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, z: Tensor, chunk: Tensor) -> Tensor:
        return z + self.change(F.silu(self.blocks(self.embed_latent(z) + self.embed_action(chunk))))


class PairLayer(nn.Module):
    """A pre-norm transformer layer (Xiong et al. 2020) for two tokens.

    A softmax over two is a sigmoid of their difference. A GPU's attention kernels are made for long sequences, and take
    long for many short ones.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = Linear(width, 3 * width)
        self.join = Linear(width, width)
        self.expand = Linear(width, 4 * width)
        self.contract = Linear(4 * width, width)

    def forward(self, tokens: Tensor, read: int = 2) -> Tensor:
        """Tokens (B, 2, W) to the first `read` of what they become, (B, read, W)."""
        query, key, value = self.attend(self.attention_norm(tokens)).unflatten(-1, (3, -1, HEAD)).unbind(2)
        further = (query * (key.flip(1) - key)).sum(-1, keepdim=True)  # on a GPU, autocast sums in float32
        seen = torch.lerp(value, value.flip(1), torch.sigmoid(HEAD**-0.5 * further).to(value.dtype))
        tokens = tokens[:, :read] + self.join(seen[:, :read].flatten(-2))
        return tokens + self.contract(F.gelu(self.expand(self.norm(tokens))))


class TransformerPredictor(nn.Module):
    """z (…, D), chunk (…, K A) to the next z (…, D), as two tokens that attend to each other.

    The change is read off the embedding's token and is zero before training. For GPUs: 8 layers of width 384 are 14
    million parameters. The width is a multiple of `HEAD`.
    """

    def __init__(self, latent: int, chunk_size: int, width: int = 384, depth: int = 8) -> None:
        super().__init__()
        self.embed_latent = Linear(latent, width)
        self.embed_action = Linear(chunk_size, width)
        self.layers = nn.ModuleList(PairLayer(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.change = Linear(width, latent)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, z: Tensor, chunk: Tensor) -> Tensor:
        tokens = torch.stack((self.embed_latent(z), self.embed_action(chunk)), dim=-2).flatten(0, -3)
        for layer in self.layers:
            tokens = layer(tokens, read=1 if layer is self.layers[-1] else 2)
        return z + self.change(self.norm(tokens[:, 0])).view(z.shape)


PREDICTORS: Registry[Callable[..., nn.Module]] = Registry(
    "predictor", {"residual": ResidualPredictor, "transformer": TransformerPredictor}
)
"""By the name under which a checkpoint's config.json knows them: each is made of `(latent, chunk_size)`, D and K A, and
`width=` and `depth=`, and maps z (…, D) and a chunk of actions (…, K A) to the next z (…, D)."""
