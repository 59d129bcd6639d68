"""The cross-entropy method."""

from dataclasses import dataclass

from torch import Tensor

from .gaussian import GaussianPlanner, lowest


@dataclass(frozen=True, eq=False, kw_only=True)
class CEM(GaussianPlanner):
    """Refit a Gaussian to its elites (Rubinstein & Kroese 2004, The Cross-Entropy Method).

    The elites are the samples whose energy is at most the quantile `elites` of all, each with the same weight.

    Args:
        elites: share of the N samples that are elites, in (0, 1].
    """

    elites: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.elites <= 1:
            raise ValueError(f"elites={self.elites} must lie in (0, 1]: it is a share of the samples")

    @property
    def elite_count(self) -> int:
        """How many samples are elites: two at least, or there would be no spread."""
        return max(2, round(self.elites * self.samples))

    def weights(self, energies: Tensor) -> Tensor:
        return lowest(energies, min(self.elite_count, energies.shape[1]))
