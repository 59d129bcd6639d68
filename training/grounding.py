"""Embeddings that are told, while they are learned, where things are.

Prediction alone keeps what is predictable, not what a task is about: of an arm's state, a cube is three numbers of
many. Where positions are known, as in every recording of a simulator, a linear map is made to read them off embeddings,
encoded and imagined ones, and the embeddings learn to be read. So they may tell where the arm is: whether a gripper
closes on a cube or beside it is a matter of a centimetre.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..models.normalisers import deviation


class Grounding(nn.Module):
    """How badly numbers (…, P), such as tracked positions, are read off embeddings (…, D): squared errors (…, 1), in
    units of the numbers' variance over a recording, `known` (E, T + 1, P)."""

    mean: Tensor
    std: Tensor

    def __init__(self, latent: int, known: np.ndarray) -> None:
        super().__init__()
        numbers = torch.from_numpy(known).flatten(0, 1)
        self.register_buffer("mean", numbers.mean(0))
        self.register_buffer("std", deviation(numbers))
        self.read = nn.Linear(latent, numbers.shape[-1])
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(self, z: Tensor, numbers: Tensor) -> Tensor:
        return (self.read(z) - (numbers - self.mean) / self.std).square().mean(-1, keepdim=True)
