"""Planners that search with a diagonal Gaussian: sample around a mean, weigh the samples, refit."""

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .base import Planner, PlanState


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussianPlanner(Planner):
    """Sample x_n = mean + std * noise_n, clipped to the box, and refit mean and std with weights w_n of the energies.

        mean <- momentum * mean + (1 - momentum) * sum_n w_n x_n
        std  <- momentum * std  + (1 - momentum) * sqrt(sum_n w_n (x_n - sum_m w_m x_m)^2),  at least sigma_min

    An algorithm adds the weights. Where no energy is finite all weights are 0 and the distribution stays as it is.

    Args:
        sigma_min: smallest standard deviation.
        momentum: share of the old mean and std that is kept, in [0, 1).
    """

    sigma_min: float = 0.01
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1 or not 0 <= self.sigma_min <= self.sigma:
            raise ValueError(
                f"momentum={self.momentum} must lie in [0, 1), sigma_min={self.sigma_min} in [0, sigma={self.sigma}]"
            )

    @abstractmethod
    def weights(self, energies: Tensor) -> Tensor:
        """Weights (B, N) of energies (B, N): not negative, summing to 1, and 0 for an energy of +inf."""

    def propose(self, state: PlanState, noise: Tensor, iteration: int) -> Tensor:
        return torch.addcmul(state.mean[:, None], state.std[:, None], noise).clamp_(-1, 1)

    def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
        weights = self.weights(energies)[..., None, None]
        mean = (weights * knots).sum(1)  # a matrix product would not be compiled into the search
        std = (weights * (knots - mean[:, None]).square()).sum(1).sqrt()
        rate = (1 - self.momentum) * weights.sum(1)
        return replace(
            state,
            mean=torch.lerp(state.mean, mean, rate),
            std=torch.lerp(state.std, std, rate).clamp_(min=self.sigma_min),
        )


def by_rank(energies: Tensor, shares: Tensor) -> Tensor:
    """Weights (B, N) of energies (B, N), summing to 1 or, where none is finite, 0.

    They are proportional to `shares` (k + 1,) by rank, the lowest energy first; the last share, of all others, is 0.
    Equal energies have the best rank among them, so that where nothing is better nothing is preferred.
    """
    best = energies.topk(len(shares) - 1, dim=1, largest=False).values
    rank = (best[:, None] < energies[..., None]).sum(-1)  # compiles into the search, as torch.searchsorted does not
    weights = shares[rank] * energies.isfinite()
    return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
