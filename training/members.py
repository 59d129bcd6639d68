"""How a model's members are taught, so that between them they offer the futures that can be.

E members, B windows a batch, H model steps, D latent size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .schedule import torch_seed

SHARE = 0.8
"""Of the episodes, what each member learns from by lot."""


def draw_lots(members: int, episodes: int, seed: int) -> Tensor:
    """Which members learn from an episode whatever they make of it, (episodes, E) bool: at least one.

    The bootstrap of Osband et al. (2016, arXiv:1602.04621), by whole episodes, whose windows tell much the same.
    """
    generator = torch.Generator().manual_seed(torch_seed(seed))
    chance = torch.rand(episodes, members, generator=generator)
    return (chance < SHARE) | (chance == chance.amin(1, keepdim=True))


def members_loss(error: Tensor, lots: Tensor, relax: float) -> Tensor:
    """A scalar, of squared errors (E, B, H, D) and lots (B, E): the share `relax` of each window is learned by the
    members that have drawn it, the rest by the one that came nearest to what happened.

    Squared error alone draws all members to the mean of what can happen, however they differ at first. Where the
    nearest takes all, each becomes one of the things that can (multiple choice learning, Guzman-Rivera et al. 2012);
    the relaxation keeps those from idling that are never the nearest (Rupprecht et al. 2017, arXiv:1612.00197), and
    with 1 there is a plain ensemble. How often something happens is not told: a rare future has as much of a member
    as a common one.
    """
    window = error.flatten(2).mean(-1)
    drawn = (window.T * lots).sum(1) / lots.sum(1)
    return (1 - relax) * window.amin(0).mean() + relax * drawn.mean()


def nearest(futures: Tensor, truth: Tensor) -> Tensor:
    """Of each window, the future (B, H, D) that came nearest to what happened (B, H, D), of futures (E, B, H, D)."""
    chosen = (futures - truth).square().mean((-1, -2)).argmin(0)
    return futures[chosen, torch.arange(len(chosen), device=chosen.device)]
