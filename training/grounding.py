"""Embeddings that are told, while they are learned, where things are.

Prediction alone keeps what is predictable, not what a task is about: of an arm's state, a cube is three numbers of
many. Where positions are known, as in every recording of a simulator, a linear map is made to read them off embeddings,
encoded and imagined ones, and the embeddings learn to be read.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class Grounding(nn.Module):
    """How badly tracked positions (…, P) are read off embeddings (…, D): squared errors (…, 1), in units of the
    positions' variance over a recording, `tracked` (E, T + 1, P) metres."""

    mean: Tensor
    std: Tensor

    def __init__(self, latent: int, tracked: np.ndarray) -> None:
        super().__init__()
        positions = torch.from_numpy(tracked).flatten(0, 1)
        self.register_buffer("mean", positions.mean(0))
        self.register_buffer("std", positions.std(0).clamp_min(1e-3))
        self.read = nn.Linear(latent, positions.shape[-1])
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(self, z: Tensor, positions: Tensor) -> Tensor:
        return (self.read(z) - (positions - self.mean) / self.std).square().mean(-1, keepdim=True)
