"""The improved cross-entropy method."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .base import PlanState
from .cem import CEM


@dataclass(frozen=True, eq=False, kw_only=True)
class ICEM(CEM):
    """CEM for real time (Pinneri et al. 2020, Sample-efficient Cross-Entropy Method, arXiv:2008.06389).

    Beside CEM: some elites are candidates again in the next iteration and, shifted, in the next plan; iteration i has
    max(N / decay^i, 2 * elites) candidates. The noise is coloured by the space (`noise_beta`, 2 to 4 in the paper).
    The mean is a candidate, and the best plan seen is executed, as in every planner here.

    Args:
        keep: share of the elites that are kept.
        decay: factor, at least 1, by which the candidates shrink from one iteration to the next.
    """

    keep: float = 0.3
    decay: float = 1.25
    momentum: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep <= 1 or self.decay < 1:
            raise ValueError(f"keep={self.keep} must lie in [0, 1], decay={self.decay} be at least 1")

    def propose(self, state: PlanState, noise: Tensor, iteration: int) -> Tensor:
        count = max(round(self.samples * self.decay**-iteration), min(self.samples, 2 * self.elite_count))
        kept = state.kept[:, :count]
        fresh = super().propose(state, noise[:, : count - kept.shape[1]], iteration)
        return torch.cat((kept, fresh), dim=1)

    def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
        state = super().update(state, knots, energies, iteration)
        index = energies.topk(round(self.keep * self.elite_count), dim=1, largest=False).indices
        return replace(state, kept=knots.take_along_dim(index[..., None, None], dim=1))
