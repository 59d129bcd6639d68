"""Random shooting, or predictive sampling when it starts from the previous plan."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .base import PlanState
from .gaussian import GaussianPlanner, by_rank


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomShooting(GaussianPlanner):
    """Sample around the best plan so far with a fixed standard deviation, and move to the best sample.

    With one iteration and a warm start this is predictive sampling (Howell et al. 2022, arXiv:2212.00541); with one
    sample, and a proposal that offers it, it is that proposal, unchosen.
    """

    fewest = 1

    def weights(self, energies: Tensor) -> Tensor:
        return by_rank(energies, torch.arange(1, -1, -1, dtype=energies.dtype, device=energies.device))

    def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
        return replace(super().update(state, knots, energies, iteration), std=state.std)
