"""Where the things are that a goal is about, read off an embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Readout(nn.Module):
    """Positions (…, P) in metres off embeddings (…, D): ridge regression on random features, solved in closed form.

    It is fitted after training, on embeddings that no label has shaped, so that distances between what it reads compare
    where objects are and forget how the arm is held.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    solution: Tensor
    offset: Tensor

    def __init__(self, latent: int, size: int, features: int = 768) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("std", torch.ones(latent))
        self.register_buffer("weight", torch.randn(latent, features, generator=generator) * (2.0 / latent) ** 0.5)
        self.register_buffer("bias", torch.randn(features, generator=generator))
        self.register_buffer("solution", torch.zeros(latent + features, size))
        self.register_buffer("offset", torch.zeros(size))

    def fit(self, z: Tensor, positions: Tensor, ridge: float = 1e-3) -> None:
        """Least squares on embeddings (B, D) and positions (B, P)."""
        self.mean.copy_(z.mean(0))
        self.std.copy_(z.std(0).clamp_min(1e-6))
        x = self._features(z).double()
        self.offset.copy_(positions.mean(0))
        gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        self.solution.copy_(torch.linalg.solve(gram, x.T @ (positions - self.offset).double()))

    def forward(self, z: Tensor) -> Tensor:
        return self._features(z) @ self.solution + self.offset

    def _features(self, z: Tensor) -> Tensor:
        x = (z - self.mean) / self.std
        return torch.cat([x, torch.relu(x @ self.weight + self.bias)], -1)
