"""Parts of one's own, each known by its name once this file is a plug-in:

    export FOREARM_PLUGINS=examples/own_parts.py    # or, each time: forearm --plugin examples/own_parts.py COMMAND …
    forearm bench env=reach obs=state checkpoint=dead_reckoning planner=annealed energy=near
    forearm record env=mine/push obs=state
    forearm train data=data/mine/push-state-play obs=state model.encoder=flat model.predictor=affine

From Python, importing it does. A package offers its parts by entry points, such as `forearm.planners`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import forearm
import torch
from forearm.envs import TASKS, ArmEnv
from forearm.planner import CEM, Energy, LatentModel, PlanState
from torch import Tensor, nn


@forearm.register("planner", "annealed")
@dataclass(frozen=True, eq=False, kw_only=True)
class Annealed(CEM):
    """CEM whose spread shrinks by a fixed factor as well: `planner.cooling`."""

    cooling: float = 0.9

    def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
        state = super().update(state, knots, energies, iteration)
        return replace(state, std=self.cooling * state.std)


@forearm.register("energy", "near")
def near(model: LatentModel, z: Tensor, goal: Tensor, radius: float = 0.01) -> Energy:
    """How far from the goal plans end, less `energy.radius`."""

    def energy(actions: Tensor) -> Tensor:
        end = model.rollout(z, actions)[..., -1, :]
        return ((end - goal[:, None]).norm(dim=-1) - radius).clamp(min=0)

    return energy


@forearm.register("encoder", "flat")
class Flat(nn.Module):
    """One linear layer."""

    def __init__(self, shape: Sequence[int], features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(torch.Size(shape).numel(), features)

    def forward(self, part: Tensor) -> Tensor:
        return self.linear(part.flatten(1).to(self.linear.weight.dtype))


@forearm.register("predictor", "affine")
class Affine(nn.Module):
    """The next embedding as an affine function of this one and the actions."""

    def __init__(self, latent: int, chunk_size: int, width: int = 0, depth: int = 0) -> None:
        super().__init__()
        self.change = nn.Linear(latent + chunk_size, latent)

    def forward(self, z: Tensor, chunk: Tensor) -> Tensor:
        return z + self.change(torch.cat((z, chunk), -1))


@forearm.register("world", "mine/push")
class Gentle(ArmEnv):
    """Pushing with slower moves: `env.speed`."""

    def __init__(self, pixels: bool = True, size: int = 64, speed: float = 0.5) -> None:
        super().__init__(TASKS["push"], pixels, size)
        self.name, self.speed = "mine/push", speed

    def advance(self, action: Any) -> None:
        super().advance(self.speed * torch.as_tensor(action).numpy())


@forearm.register("model", "dead_reckoning")
class DeadReckoning(nn.Module):
    """A world model that nobody trained: the commanded tip goes where actions send it, and nothing else moves."""

    chunk = 2

    def encode(self, observation: Mapping[str, Tensor]) -> Tensor:
        """The commanded tip (B, 3) metres, of `state`."""
        return observation["state"][:, 6:9]

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """Tips (B, N, H, 3) after each two of the actions (B, N, T, A)."""
        moves = 0.05 * actions[..., :3].unflatten(2, (-1, self.chunk)).sum(3)
        return z[:, None, None] + moves.cumsum(2)
