"""What plans on the arm are charged for, beside the planner's own energies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..envs import ArmEnv
from ..envs.arm import ACTION_SCALE
from ..errors import UserError
from ..models.prior import ActionPrior
from ..models.temporal import TemporalDistance
from ..models.world_model import WorldModel
from ..planner import Declared, LatentModel, Term
from .handling import FALL

Features = Callable[[Tensor], Tensor]
"""What is compared of embeddings (…, D), (…, F)."""


def learned(temporal: TemporalDistance | None) -> TemporalDistance:
    """A checkpoint's temporal distance. UserError where it has none."""
    if temporal is None:
        raise UserError(
            "energy.metric: the checkpoint has no temporal distance; `forearm train temporal.steps=…` learns one"
        )
    return temporal


@dataclass(frozen=True, eq=False)
class Added(Declared):
    """Features whose mean squared distance is the sum of what it is of each metric's own."""

    metrics: tuple[Features, ...]

    def __call__(self, z: Tensor) -> Tensor:
        parts = [metric(z) for metric in self.metrics]
        total = sum(part.shape[-1] for part in parts)
        return torch.cat([part * (total / part.shape[-1]) ** 0.5 for part in parts], -1)


METRICS: dict[str, Callable[[WorldModel, TemporalDistance | None], Features | None]] = {
    "slow": lambda model, temporal: model.slow,
    "plain": lambda model, temporal: None,
    "object": lambda model, temporal: model.readout,
    "temporal": lambda model, temporal: learned(temporal),
    "slow+temporal": lambda model, temporal: Added((model.slow, learned(temporal))),
}
"""What of embeddings an energy compares, by name. Only `object` takes labels, the tracked positions; `slow` and
`temporal` are of the same scale (a mean variance of 1 over the recording), so that they add up."""


@dataclass(frozen=True)
class Box:
    """A box in the world: corners (3,) in metres, written `x,y,z..x,y,z`."""

    low: np.ndarray
    high: np.ndarray

    @classmethod
    def parse(cls, text: str) -> Box:
        """Raises ValueError for what is no box."""
        low, high = (np.array([float(number) for number in corner.split(",")]) for corner in text.split(".."))
        if low.shape != (3,) or high.shape != (3,) or not (low < high).all():
            raise ValueError(f"{text} is no box")
        return cls(low, high)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether points (…, 3) lie inside."""
        return np.all((points > self.low) & (points < self.high), axis=-1)


@dataclass(frozen=True, eq=False)
class CommandedTips(Declared):
    """Where the tip is sent, (B, N, T, 3) metres, by actions (B, N, T, A) when its command was (B, 3).

    `scale` (3,) are metres of an action of 1, and `low`, `high` (3,) the corners of the workspace.
    """

    command: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, env: ArmEnv, command: Tensor) -> CommandedTips:
        """For an arm whose command was (B, 3)."""
        workspace = env.arm.workspace
        rest = (torch.from_numpy(part[:3]).to(command) for part in (ACTION_SCALE, workspace.low, workspace.high))
        return cls(command, *rest)

    def __call__(self, actions: Tensor) -> Tensor:
        position, path = self.command[:, None], []
        for move in (actions[..., :3] * self.scale).unbind(2):
            position = (position + move).clamp(self.low, self.high)
            path.append(position)
        return torch.stack(path, 2)


Readout = Callable[[Tensor], Tensor]
"""Positions (…, P) in metres off embeddings (…, D)."""


@dataclass(eq=False)
class Remembering(Declared):
    """A world model that imagines the same actions once, for several terms of one energy."""

    model: LatentModel
    last: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    def encode(self, observation: dict[str, Tensor]) -> Tensor:
        return self.model.encode(observation)

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        if self.last is None or self.last[0] is not actions:
            self.last = actions, self.model.rollout(z, actions)
        return self.last[1]


@dataclass(frozen=True, eq=False)
class EarlyRelease(Term, Declared):
    """How much actions (B, N, T, A) open the gripper before the first object is imagined to fall, (B, N).

    It falls if it is more than half of `FALL` lower at some later step of the plan: what is imagined is
    a little off, and to come close to a drop is to drop now and then. Letting go is the quickest way down, and
    what lies where it should be counts for the goal however it got there. Of several members' futures, the mean.

    Args:
        model: rolls latents out.
        readout: where objects are (…, P) of embeddings (…, D).
        z: latents (B, D) of the present observation.
        chunk: environment steps K in one model step.
    """

    model: LatentModel
    readout: Readout
    z: Tensor
    chunk: int

    def __call__(self, actions: Tensor, /) -> Tensor:
        height = self.readout(self.model.rollout(self.z, actions))[..., 2]  # after each of H model steps
        start = self.readout(self.z)[:, None, None, 2].expand_as(height[..., :1])
        before = torch.cat((start, height[..., :-1]), -1)
        lowest = height.flip(-1).cummin(-1).values.flip(-1)
        opening = actions[..., -1].clamp(min=0).unflatten(-1, (-1, self.chunk)).mean(-1)
        charged = ((before - lowest > 0.5 * FALL) * opening).mean(-1)
        return charged.mean(0) if charged.dim() == 3 else charged


@dataclass(frozen=True, eq=False)
class Unlikely(Term, Declared):
    """How unlikely a plan's actions are under an action prior that goes the way the model imagines; 1 is what was done,
    on average, where it learned.

    The plan is cut into the L steps that a prior answers with, and each is judged where it begins in the imagined
    future, by `ActionPrior.denoising_error`; a rest shorter than L is not judged. Of several members' futures, the
    mean.

    Args:
        model: rolls latents out.
        prior, readout: the prior, and where objects are (…, P) of embeddings (…, D).
        z, goal: latents (B, D) of the present observation and of the goal.
        chunk: environment steps K in one model step, a divisor of L.
    """

    model: LatentModel
    prior: ActionPrior
    readout: Readout
    z: Tensor
    goal: Tensor
    chunk: int

    def __call__(self, actions: Tensor, /) -> Tensor:
        length = self.prior.architecture.segment
        count, stride = actions.shape[2] // length, length // self.chunk
        segments = actions[:, :, : count * length].unflatten(2, (count, length))
        later = self.model.rollout(self.z, actions)[..., stride - 1 : (count - 1) * stride : stride, :]
        start = self.z[:, None, None].expand(*later.shape[:-2], 1, -1)
        z = torch.cat((start, later), -2)  # (…, B, N, count, D)
        now = self.readout(z)
        goal = self.readout(self.goal)[:, None, None].expand_as(now)
        done = segments.expand(*z.shape[:-1], *segments.shape[-2:])
        told = z.flatten(0, -2), now.flatten(0, -2), goal.flatten(0, -2)
        error = self.prior.denoising_error(*told, done.flatten(0, -3))
        each = error.view(z.shape[:-1]).mean(-1) / self.prior.architecture.typical
        return each.mean(0) if each.dim() == 3 else each
