"""Where the things are that a goal is about, read off an embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .linear import Linear, linear
from .normalisers import spread

FEATURES = 768


class Readout(nn.Module):
    """Positions (…, P) in metres off embeddings (…, D): ridge regression on random features, solved in closed form.

    Where `width` is not 0, a linear one, and what a small network adds to it, nothing before its training. It could not
    take back what random features get wrong.

    It is fitted after training, on embeddings that no label has shaped, so that distances between what it reads compare
    where objects are and forget how the arm is held.
    """

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor
    solution: Tensor
    offset: Tensor
    spread: Tensor

    def __init__(self, latent: int, size: int, width: int = 0) -> None:
        super().__init__()
        features = 0 if width else FEATURES
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("std", torch.ones(latent))
        self.register_buffer("weight", torch.randn(latent, features, generator=generator) * (2.0 / latent) ** 0.5)
        self.register_buffer("bias", torch.randn(features, generator=generator))
        self.register_buffer("solution", torch.zeros(latent + features, size))
        self.register_buffer("offset", torch.zeros(size))
        self.correction = None
        if width:
            self.register_buffer("spread", torch.ones(size))
            last = Linear(width, size)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.correction = nn.Sequential(Linear(latent, width), nn.SiLU(), Linear(width, width), nn.SiLU(), last)

    def fit(self, z: Tensor, positions: Tensor, ridge: float = 1e-3) -> None:
        """Least squares on embeddings (B, D) and positions (B, P)."""
        self.mean.copy_(z.mean(0))
        self.std.copy_(z.std(0).clamp_min(1e-6))
        x = self._features(self._normalised(z)).double()
        self.offset.copy_(positions.mean(0))
        gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        self.solution.copy_(torch.linalg.solve(gram, x.T @ (positions - self.offset).double()))
        if self.correction is not None:
            self.spread.copy_(spread(positions))

    def forward(self, z: Tensor) -> Tensor:
        x = self._normalised(z)
        read = linear(self._features(x), self.solution.T) + self.offset
        return read if self.correction is None else read + self.spread * self.correction(x)

    def _normalised(self, z: Tensor) -> Tensor:
        return (z - self.mean) / self.std

    def _features(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.relu(linear(x, self.weight.T) + self.bias)], -1)
