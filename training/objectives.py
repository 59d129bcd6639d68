"""What a world model is trained on besides prediction, so that its latent space does not collapse; by name.

z is (B, H + 1, D): the embeddings of a batch of windows.
"""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..models.world_model import WorldModel
from ..registry import Registry


class ObjectiveError(UserError, ValueError):
    """An objective, or a setting of one, does not exist or cannot be."""


class Objective(nn.Module):
    """Where prediction targets come from, and a penalty on the embeddings. Its buffers are part of a snapshot."""

    weight: float

    def begin(self, model: WorldModel) -> None:
        """Called once, before training, when the model has its normaliser."""

    def targets(self, observation: Mapping[str, Tensor], z: Tensor) -> Tensor:
        """What predictions are compared to: embeddings like z, of observation parts (B (H + 1), …)."""
        del observation
        return z

    @abstractmethod
    def penalty(self, z: Tensor, generator: torch.Generator) -> Tensor:
        """A scalar, zero for embeddings that are spread as they should be."""

    def after_step(self, model: WorldModel) -> None:
        """Called when the optimiser has moved the model."""


class SIGReg(Objective):
    """Sketched isotropic Gaussian regularisation (LeJEPA, Balestriero and LeCun 2025, arXiv 2511.08544).

    The Epps-Pulley statistic of random one-dimensional projections: the distance between their empirical
    characteristic function and exp(-t²/2), weighted by the latter. Only a standard normal has that function, and only
    an isotropic Gaussian is standard normal along every projection.
    """

    t: Tensor

    def __init__(self, weight: float = 0.02, slices: int = 64, knots: int = 9, extent: float = 4.0) -> None:
        super().__init__()
        self.weight = weight
        self.slices = slices
        self.register_buffer("t", torch.linspace(0.0, extent, knots + 1)[1:], persistent=False)

    def penalty(self, z: Tensor, generator: torch.Generator) -> Tensor:
        z = z.flatten(0, -2)
        directions = torch.randn(z.shape[-1], self.slices, generator=generator, device=z.device)
        phase = (z @ (directions / directions.norm(dim=0)))[..., None] * self.t
        gaussian = torch.exp(-0.5 * self.t.square())
        error = (phase.cos().mean(0) - gaussian).square() + phase.sin().mean(0).square()
        return len(z) * (error * gaussian).mean()


class VICReg(Objective):
    """Variance and covariance terms of VICReg (Bardes, Ponce and LeCun 2022, arXiv 2105.04906): every dimension has a
    deviation of at least 1, and no two tell the same."""

    def __init__(self, weight: float = 0.5, covariance: float = 0.5) -> None:
        super().__init__()
        self.weight = weight
        self.covariance = covariance

    def penalty(self, z: Tensor, generator: torch.Generator) -> Tensor:
        del generator
        z = z.flatten(0, -2)
        z = z - z.mean(0)
        covariance = z.T @ z / (len(z) - 1)
        variance = covariance.diagonal()
        deviation = (variance + 1e-4).sqrt()
        shared = (covariance.square().sum() - variance.square().sum()) / z.shape[-1]
        return (1.0 - deviation).clamp_min(0.0).mean() + self.covariance * shared


class EMA(Objective):
    """Targets from a slowly following copy of the encoder (BYOL, Grill et al. 2020; V-JEPA). No penalty: nothing
    but the lag keeps it from collapsing, so look at the effective rank."""

    def __init__(self, decay: float = 0.996) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ObjectiveError(f"objective.decay={decay}: must lie in [0, 1]")
        self.weight = 0.0
        self.decay = decay

    def begin(self, model: WorldModel) -> None:
        self.teacher: WorldModel = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def targets(self, observation: Mapping[str, Tensor], z: Tensor) -> Tensor:
        return self.teacher.encode(observation).view_as(z)

    def penalty(self, z: Tensor, generator: torch.Generator) -> Tensor:
        del generator
        return z.new_zeros(())

    @torch.no_grad()
    def after_step(self, model: WorldModel) -> None:
        pairs = zip(self.teacher.parameters(), model.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 1.0 - self.decay)


OBJECTIVES: Registry[type[Objective]] = Registry("objective", {"vicreg": VICReg, "sigreg": SIGReg, "ema": EMA})
"""By the names that settings use."""


def make_objective(name: str, **settings: float) -> Objective:
    """An objective by name.

    Raises:
        ObjectiveError: naming the valid names or settings, or the value that cannot be.
    """
    if name not in OBJECTIVES:
        raise ObjectiveError(f"objective={name} is unknown; choose one of: {', '.join(OBJECTIVES)}")
    known = inspect.signature(OBJECTIVES[name]).parameters
    for key, value in settings.items():
        if key not in known:
            raise ObjectiveError(
                f"objective.{key}={value}: {name} has no such setting; choose from: {', '.join(known)}"
            )
        if not value >= 0:
            raise ObjectiveError(f"objective.{key}={value}: must not be negative")
    return OBJECTIVES[name](**settings)
