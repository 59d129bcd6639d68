"""The temporal distance: how long play takes from one embedding to another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear


@dataclass(frozen=True)
class TemporalArchitecture:
    """All that is needed to build a temporal distance; written into a checkpoint's config.json.

    `latent` D is the size of embeddings, `features` F of what distances are taken of.
    """

    latent: int
    features: int = 32
    width: int = 256


class TemporalDistance(nn.Module):
    """Features (…, F) of embeddings (…, D) that lie the farther apart, the longer play takes from one to the other.

    Contrastive (InfoNCE, van den Oord et al. 2018; of states and later ones as in Eysenbach et al. 2022,
    arXiv:2206.07568), with -|phi(z) - phi(g)|^2 as logits: where that is learned, squared distances are -log p(g | z) /
    p(g) and a constant, of what play comes to from z. It knows nothing but time. What an arm does within a few steps
    says nothing about later ones and so counts for little; where an object lies does. It is a distance, the same both
    ways, and so takes falling and lifting for equally long.
    """

    mean: Tensor
    std: Tensor
    scale: Tensor

    def __init__(self, architecture: TemporalArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        self.register_buffer("mean", torch.zeros(a.latent))
        self.register_buffer("std", torch.ones(a.latent))
        self.register_buffer("scale", torch.ones(()))
        self.net = nn.Sequential(
            Linear(a.latent, a.width),
            nn.SiLU(),
            Linear(a.width, a.width),
            nn.SiLU(),
            Linear(a.width, a.features),
        )

    def fit_normaliser(self, z: Tensor) -> None:
        """Takes mean and deviation from embeddings (B, D)."""
        self.mean.copy_(z.mean(0))
        self.std.copy_(z.std(0).clamp_min(1e-3))

    def fit_scale(self, z: Tensor) -> None:
        """Scales features of embeddings (B, D) to a mean variance of 1, as `slow_metric` does: their distances add."""
        self.scale.copy_((self(z) * self.scale).var(0).mean().sqrt().clamp_min(1e-12))

    def forward(self, z: Tensor) -> Tensor:
        return self.net((z - self.mean) / self.std) / self.scale

    def loss(self, z: Tensor, later: Tensor) -> Tensor:
        """Cross entropy of telling, both ways, which of the batch's later embeddings (B, D) follows which z (B, D)."""
        logits = -torch.cdist(self(z).float(), self(later).float()).square()
        own = torch.arange(len(z), device=z.device)
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
