"""The cross-entropy method."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..settings import key
from .gaussian import GaussianPlanner, by_rank


@dataclass(frozen=True, eq=False, kw_only=True)
class CEM(GaussianPlanner):
    """Refit a Gaussian to its elites (Rubinstein & Kroese 2004, The Cross-Entropy Method), the better ones more.

    Of k elites, the one of rank r = 1 … k weighs log(k + 1/2) - log r, as in CMA-ES (Hansen 2016, arXiv:1604.00772);
    with equal weights the same samples come less close (`forearm bench planners`).

    Args:
        elites: share of the N samples that are elites, in (0, 1].
    """

    elites: float = key(0.1, "share of the samples that are elites")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.elites <= 1:
            raise ValueError(f"elites={self.elites} must lie in (0, 1]: it is a share of the samples")

    @property
    def elite_count(self) -> int:
        """How many samples are elites: two at least, or there would be no spread."""
        return max(2, round(self.elites * self.samples))

    def weights(self, energies: Tensor) -> Tensor:
        return by_rank(energies, self._shares)

    @cached_property
    def _shares(self) -> Tensor:
        rank = torch.arange(1, self.elite_count + 1).to(self.space.low)
        return torch.nn.functional.pad(math.log(self.elite_count + 0.5) - rank.log(), (0, 1))
