"""Gradient descent through the energy, alone and after a cross-entropy search."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..settings import key
from .base import Planner, PlanState
from .icem import ICEM


@dataclass(frozen=True, eq=False, kw_only=True)
class Gradient(Planner):
    """Adam (Kingma & Ba 2015, arXiv:1412.6980) from N starts at once, projected on the box after each step.

    The starts are the warm start, the previous plan, and Gaussian samples around the warm start. The energy must be
    differentiable by the actions; a gradient that is not finite counts as zero.

    Args:
        learning_rate: first step size in the normalised box; it falls to zero along a half cosine.
    """

    samples: int = key(8, "restarts", first=True)
    iterations: int = key(32, "steps of the descent", first=True)
    learning_rate: float = 0.1

    @property
    def first_gradient(self) -> int:
        return 0

    def propose(self, state: PlanState, noise: Tensor, iteration: int) -> Tensor:
        if iteration:
            return state.kept
        return torch.addcmul(state.mean[:, None], state.std[:, None], noise).clamp_(-1, 1)

    def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
        return adam_step(state, knots, energies, iteration, self.iterations, self.learning_rate)


@dataclass(frozen=True, eq=False, kw_only=True)
class CEMGradient(ICEM):
    """iCEM finds the basin, Adam descends in it: the kept elites and the mean are refined by gradient.

    Args:
        refine: share of the iterations that are gradient steps, in (0, 1); the first never is.
        learning_rate: as in `Gradient`.
    """

    iterations: int = key(12, "iterations a plan", first=True)
    refine: float = 0.7
    learning_rate: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.refine < 1:
            raise ValueError(f"refine={self.refine} must lie in (0, 1): it is a share of the iterations")

    @property
    def first_gradient(self) -> int:
        return max(1, self.iterations - max(1, round(self.refine * self.iterations)))

    def propose(self, state: PlanState, noise: Tensor, iteration: int) -> Tensor:
        if iteration < self.first_gradient:
            return super().propose(state, noise, iteration)
        if iteration == self.first_gradient:
            return torch.cat((state.mean[:, None], state.kept[:, : self.samples - 1]), dim=1)
        return state.kept

    def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
        if iteration < self.first_gradient:
            return super().update(state, knots, energies, iteration)
        steps = self.iterations - self.first_gradient
        return adam_step(state, knots, energies, iteration - self.first_gradient, steps, self.learning_rate)


def adam_step(
    state: PlanState, knots: Tensor, energies: Tensor, step: int, steps: int, learning_rate: float
) -> PlanState:
    """One projected step for every candidate; they become `state.kept`, and the best of them the mean.

    Raises:
        ValueError: if the energy cannot be differentiated by the actions.
    """
    if not energies.requires_grad:
        raise ValueError("a gradient planner needs an energy that torch can differentiate by the actions; use cem")
    (gradient,) = torch.autograd.grad(energies, knots, torch.ones_like(energies))
    gradient = gradient.nan_to_num(0.0, 0.0, 0.0).clamp_(-1e15, 1e15)  # whose square is finite
    first, second = state.scratch if step else (torch.zeros_like(gradient), torch.zeros_like(gradient))
    first = torch.lerp(first, gradient, 1 - 0.9)
    second = torch.lerp(second, gradient.square(), 1 - 0.999)
    rate = learning_rate * (1 + math.cos(math.pi * step / steps)) / 2
    descent = (first / (1 - 0.9 ** (step + 1))) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
    moved = (knots.detach() - rate * descent).clamp_(-1, 1)
    index = energies.detach().argmin(dim=1)[:, None, None, None]
    return replace(state, mean=moved.take_along_dim(index, dim=1)[:, 0], kept=moved, scratch=(first, second))
