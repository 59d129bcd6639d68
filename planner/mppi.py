"""Model predictive path integral control."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..settings import key
from .base import Execute
from .gaussian import GaussianPlanner


@dataclass(frozen=True, eq=False, kw_only=True)
class MPPI(GaussianPlanner):
    """Average the samples with weights w_n ~ exp(-(E_n - min E) / temperature).

    Williams et al. 2017, Information Theoretic MPC for Model-Based Reinforcement Learning. The temperature is either
    given, in units of the energy, or found for each problem and iteration so that the effective sample size

        ESS = (sum w)^2 / sum w^2

    is the share `effective` of the samples, which makes the planner indifferent to the energy's scale.

    Args:
        effective: target ESS as a share of the N samples, in (0, 1).
        temperature: a fixed temperature instead.
        execute: the mean by default, which is what the theory is about.
    """

    effective: float = key(0.1, "effective sample size that sets the temperature, as a share of the samples")
    temperature: float | None = None
    execute: Execute = "mean"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.effective < 1 or (self.temperature is not None and self.temperature <= 0):
            raise ValueError(
                f"effective={self.effective} must lie in (0, 1), temperature={self.temperature} be positive or None"
            )

    def weights(self, energies: Tensor) -> Tensor:
        # The largest float where no energy is finite: inf - inf would be NaN.
        above = energies - energies.amin(1, keepdim=True).clamp(max=torch.finfo(energies.dtype).max)
        temperature = self.temperature or temperature_for(above, max(1.5, self.effective * energies.shape[1]))
        weights = torch.exp(-above / temperature)
        return weights / weights.sum(1, keepdim=True).clamp(min=1)


def temperature_for(above: Tensor, target: float, sections: int = 64) -> Tensor:
    """Temperatures (B, 1) at which weights exp(-above / temperature) have the effective sample size `target`.

    `above` (B, N) are energies less their minimum. Let g be the k-th smallest, k the target rounded up. ESS grows with
    the temperature; well below g only k - 1 samples have weight, and ESS >= sum w, which is k / e^(g / temperature) or
    more. So the temperature lies between g / 20 and 100 g (to 1 %). log ESS is computed there on a logarithmic grid,
    all points at once, and inverted as a piecewise linear function: few operations, and no look at a value.
    """
    gap = above.kthvalue(min(math.ceil(target), above.shape[1]), dim=1, keepdim=True).values.clamp(1e-30, 1e30)
    grid = torch.linspace(math.log(1 / 20), math.log(100), sections, device=above.device, dtype=above.dtype)
    weights = torch.exp(-above[:, None] / (gap * grid.exp())[..., None])  # (B, sections, N)
    # Both sums are at least 1, the best sample's weight, unless no energy is finite.
    size = 2 * weights.sum(-1).clamp(min=1).log() - weights.square().sum(-1).clamp(min=1).log()
    crossed = ((math.log(target) - size[:, :-1]) / size.diff(dim=1).clamp(min=1e-6)).clamp(0, 1).sum(1, keepdim=True)
    return gap * torch.exp(grid[0] + crossed * (grid[1] - grid[0]))
