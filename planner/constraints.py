"""Constraints as energies: places not to be in, and limits not to exceed.

A constraint looks at some quantity of the future, a function from actions (B, N, T, A) to (B, N, T, …): end-effector
positions in metres, joint angles in radians. Hard, it rejects a plan that breaks it at any step (its energy is +inf);
soft, its energy is the depth of the violation summed over steps, an exact penalty if its weight is large enough.
Either way `violations` counts the steps that break it, and the plan reports them.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .capture import Declared
from .energy import Term


@dataclass(frozen=True, eq=False)
class Constraint(Term, Declared):
    """What constraints share: the quantity, hard or soft, and counting.

    Args:
        quantity: actions (B, N, T, A) to what is constrained, (B, N, T, …).
        hard: reject with +inf, or else penalise by depth.
    """

    quantity: Callable[[Tensor], Tensor]
    hard: bool

    @abstractmethod
    def depth(self, values: Tensor) -> Tensor:
        """How deep values (B, N, T, …) are in violation, (B, N, T); 0 or less where they are not."""

    def __call__(self, actions: Tensor, /) -> Tensor:
        depth = self.depth(self.quantity(actions))
        if self.hard:
            return torch.where(_broken(depth).any(-1), torch.inf, 0.0)
        return depth.clamp(min=0).sum(-1)

    def violations(self, actions: Tensor) -> Tensor:
        return _broken(self.depth(self.quantity(actions))).sum(-1)


@dataclass(frozen=True, eq=False)
class KeepOut(Constraint):
    """Positions (B, N, T, 3) stay out of boxes with corners `low` and `high`, each (3,) or (boxes, 3), in metres."""

    low: Tensor
    high: Tensor

    def depth(self, values: Tensor) -> Tensor:
        values = values[..., None, :]
        inside = torch.minimum(values - self.low, self.high - values).amin(-1)
        return inside.amax(-1)


@dataclass(frozen=True, eq=False)
class Limits(Constraint):
    """Values (B, N, T, J), such as joint angles in radians, stay between `low` and `high`, each (J,)."""

    low: Tensor
    high: Tensor

    def depth(self, values: Tensor) -> Tensor:
        return torch.maximum(self.low - values, values - self.high).amax(-1)


def _broken(depth: Tensor) -> Tensor:
    # Not `depth > 0`: a quantity that is NaN keeps no constraint.
    return ~(depth <= 0)
