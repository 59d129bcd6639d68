"""The action prior: what was done, in play, on the way to a goal like this one."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear, lacking
from .normalisers import spread
from .precision import Precision, multiplying_in, products
from .predictor import Block

FREQUENCIES = 4
TEMPERATURE = 0.6
"""Deviation of the noise that actions are drawn from, where training had 1: nearer to what was done most often."""
TIMES = (0.3, 0.7)
"""At which `denoising_error` looks: early, where the state tells what is to be done, and late, where details show."""


@dataclass(frozen=True)
class PriorArchitecture:
    """All that is needed to build a prior; written into a checkpoint's config.json.

    `latent` D and `goal` P are sizes of what it is given, `segment` the environment steps L it answers with; `typical`
    is its `denoising_error` on what it learned from, 0 where that was not measured.
    """

    latent: int
    goal: int
    action_size: int
    segment: int = 6
    width: int = 384
    depth: int = 3
    typical: float = 0.0


class ActionPrior(nn.Module):
    """Draws actions from p(next L actions | embedding, where objects are now, where they are to be).

    Flow matching (Lipman et al. 2023, arXiv:2210.02747): a velocity field, trained by regression, that carries Gaussian
    noise along straight lines to actions. It keeps several ways to do something apart, which a regression of the
    actions themselves would average.
    """

    mean: Tensor
    std: Tensor
    place: Tensor
    reach: Tensor
    probe: Tensor
    narrow: nn.ModuleList | None

    def __init__(self, architecture: PriorArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        size = a.segment * a.action_size
        self.register_buffer("mean", torch.zeros(a.latent))
        self.register_buffer("std", torch.ones(a.latent))
        self.register_buffer("place", torch.zeros(a.goal))
        self.register_buffer("reach", torch.ones(a.goal))
        probe = torch.randn(size, generator=torch.Generator().manual_seed(0))
        self.register_buffer("probe", probe, persistent=False)
        self.embed = Linear(a.latent + 2 * a.goal + size + 2 * FREQUENCIES, a.width)
        self.blocks = nn.Sequential(*(Block(a.width) for _ in range(a.depth)))
        self.velocity = Linear(a.width, size)
        self.precision: Precision = "fp32"
        self.register_module("narrow", None)

    def in_precision(self, precision: Precision) -> Self:
        """This prior, but multiplying in these numbers where it does not learn, by copies of its weights."""
        other = copy(self)
        other._modules = dict(self._modules)
        other.precision = precision
        layers = (self.embed, self.blocks, self.velocity)
        other.narrow = None
        if precision != "fp32":
            other.narrow = nn.ModuleList(multiplying_in(precision, layer) for layer in layers)
        return other

    def fit_normaliser(self, z: Tensor, positions: Tensor) -> None:
        """Takes mean and deviation from embeddings (B, D) and positions (B, P)."""
        self.mean.copy_(z.mean(0))
        self.std.copy_(z.std(0).clamp_min(1e-3))
        self.place.copy_(positions.mean(0))
        self.reach.copy_(spread(positions))

    def forward(self, x: Tensor, time: Tensor, z: Tensor, now: Tensor, goal: Tensor) -> Tensor:
        """Velocities (B, L A) at x (B, L A) and time (B, 1), 0 at noise and 1 at actions."""
        phase = 2 * math.pi * time * torch.arange(1, FREQUENCIES + 1, device=x.device)
        told = ((z - self.mean) / self.std, (now - self.place) / self.reach, (goal - now) / self.reach)
        embed, blocks, velocity = (self.embed, self.blocks, self.velocity) if self.narrow is None else self.narrow
        return velocity(F.silu(blocks(embed(torch.cat((x, phase.sin(), phase.cos(), *told), -1)))))

    def loss(self, z: Tensor, now: Tensor, goal: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity, of actions (B, L, A) that led from `now` to `goal`, (B, P) metres."""
        end = actions.flatten(1)
        start = torch.randn(end.shape, generator=generator, device=end.device)
        time = torch.rand(len(end), 1, generator=generator, device=end.device)
        return self._misses(start, end, time, z, now, goal).mean()

    def sample(
        self, z: Tensor, now: Tensor, goal: Tensor, noise: Tensor, steps: int = 6, temperature: float = TEMPERATURE
    ) -> Tensor:
        """Actions (B, L, A) in [-1, 1], a function of standard noise (B, L, A): the flow in `steps` Euler steps, from
        noise of the deviation `temperature`."""
        rows = len(noise)
        if missing := lacking(rows, noise):  # once here, not in each layer
            z, now, goal = (F.pad(part, (0, 0, 0, missing)) for part in (z, now, goal))
            noise = F.pad(noise, (0, 0, 0, 0, 0, missing))
        x = temperature * noise.flatten(1)
        with products(self.precision, z.device):
            for step in range(steps):
                time = x.new_full((len(x), 1), step / steps)
                x = x + self(x, time, z, now, goal).float() / steps
        return x.clamp(-1, 1).view_as(noise)[:rows]

    def denoising_error(self, z: Tensor, now: Tensor, goal: Tensor, actions: Tensor) -> Tensor:
        """How badly the flow tells actions (B, L, A) from noise, (B,): its loss on them, at `TIMES`, with one noise and
        its mirror image for all, so that it is a function of the actions and can be descended.

        Rightly weighted over all times, such errors bound the negative log-likelihood (Ho et al. 2020,
        arXiv:2006.11239); a few of them, of the same noise, rank by it, as a diffusion classifier does (Li et al. 2023,
        arXiv:2303.16203). Lowest is the mode: of what was done with noise, the same without it is the likelier.
        """
        end = actions.flatten(1)
        error = end.new_zeros(len(end))
        with products(self.precision, z.device):
            for time in TIMES:
                for start in (self.probe, -self.probe):
                    at = end.new_full((len(end), 1), time)
                    error = error + self._misses(start.expand_as(end), end, at, z, now, goal).float().mean(-1)
        return error / (2 * len(TIMES))

    def _misses(self, start: Tensor, end: Tensor, time: Tensor, z: Tensor, now: Tensor, goal: Tensor) -> Tensor:
        """Squared errors (B, L A) of velocities on the way from noise to actions, both (B, L A), at times (B, 1)."""
        return (self(torch.lerp(start, end, time), time, z, now, goal) - (end - start)).square()
