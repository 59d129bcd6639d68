"""The action prior: what was done, in play, on the way to a goal like this one."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .predictor import Block

FREQUENCIES = 4


@dataclass(frozen=True)
class PriorArchitecture:
    """All that is needed to build a prior; written into a checkpoint's config.json.

    `latent` D and `goal` P are sizes of what it is given, `segment` the environment steps L it answers with.
    """

    latent: int
    goal: int
    action_size: int
    segment: int = 6
    width: int = 384
    depth: int = 3


class ActionPrior(nn.Module):
    """Draws actions from p(next L actions | embedding, where objects are now, where they are to be).

    Flow matching (Lipman et al. 2023, arXiv:2210.02747): a velocity field, trained by regression, that carries Gaussian
    noise along straight lines to actions. It keeps several ways to do something apart, which a regression of the
    actions themselves would average. `bf16` makes `sample` multiply in bfloat16.
    """

    bf16 = False
    mean: Tensor
    std: Tensor
    place: Tensor
    reach: Tensor

    def __init__(self, architecture: PriorArchitecture) -> None:
        super().__init__()
        a = self.architecture = architecture
        size = a.segment * a.action_size
        self.register_buffer("mean", torch.zeros(a.latent))
        self.register_buffer("std", torch.ones(a.latent))
        self.register_buffer("place", torch.zeros(a.goal))
        self.register_buffer("reach", torch.ones(a.goal))
        self.embed = nn.Linear(a.latent + 2 * a.goal + size + 2 * FREQUENCIES, a.width)
        self.blocks = nn.Sequential(*(Block(a.width) for _ in range(a.depth)))
        self.velocity = nn.Linear(a.width, size)

    def fit_normaliser(self, z: Tensor, positions: Tensor) -> None:
        """Takes mean and deviation from embeddings (B, D) and positions (B, P)."""
        self.mean.copy_(z.mean(0))
        self.std.copy_(z.std(0).clamp_min(1e-3))
        self.place.copy_(positions.mean(0))
        self.reach.copy_(positions.std(0).clamp_min(1e-3))

    def forward(self, x: Tensor, time: Tensor, z: Tensor, now: Tensor, goal: Tensor) -> Tensor:
        """Velocities (B, L A) at x (B, L A) and time (B, 1), 0 at noise and 1 at actions."""
        phase = 2 * math.pi * time * torch.arange(1, FREQUENCIES + 1, device=x.device)
        told = ((z - self.mean) / self.std, (now - self.place) / self.reach, (goal - now) / self.reach)
        return self.velocity(F.silu(self.blocks(self.embed(torch.cat((x, phase.sin(), phase.cos(), *told), -1)))))

    def loss(self, z: Tensor, now: Tensor, goal: Tensor, actions: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the velocity, of actions (B, L, A) that led from `now` to `goal`, (B, P) metres."""
        end = actions.flatten(1)
        start = torch.randn(end.shape, generator=generator, device=end.device)
        time = torch.rand(len(end), 1, generator=generator, device=end.device)
        return (self(torch.lerp(start, end, time), time, z, now, goal) - (end - start)).square().mean()

    def sample(self, z: Tensor, now: Tensor, goal: Tensor, noise: Tensor, steps: int = 6) -> Tensor:
        """Actions (B, L, A) in [-1, 1], a function of the noise (B, L, A): the flow in `steps` Euler steps."""
        x = noise.flatten(1)
        with torch.autocast(z.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            for step in range(steps):
                time = x.new_full((len(x), 1), step / steps)
                x = x + self(x, time, z, now, goal).float() / steps
        return x.clamp(-1, 1).view_as(noise)
