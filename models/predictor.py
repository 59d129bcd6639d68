"""Predictors: the next embedding from this one and an action chunk."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Block(nn.Module):
    """Pre-norm residual perceptron."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width)
        self.contract = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.contract(F.silu(self.expand(self.norm(x))))


class ResidualPredictor(nn.Module):
    """z (…, D), chunk (…, K A) to the next z (…, D): z plus a learned change, zero before training."""

    def __init__(self, latent: int, chunk_size: int, width: int = 384, depth: int = 2) -> None:
        super().__init__()
        self.embed_latent = nn.Linear(latent, width)
        self.embed_action = nn.Linear(chunk_size, width, bias=False)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.change = nn.Linear(width, latent)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def forward(self, z: Tensor, chunk: Tensor) -> Tensor:
        return z + self.change(F.silu(self.blocks(self.embed_latent(z) + self.embed_action(chunk))))


PREDICTORS: dict[str, type[nn.Module]] = {"residual": ResidualPredictor}
"""By the name under which a checkpoint's config.json knows them."""
