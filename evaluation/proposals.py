"""What a planner evaluates beside its own samples: a learned prior's actions, and holding the position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.prior import TEMPERATURE, ActionPrior
from ..models.world_model import WorldModel
from ..planner import ActionSpace, PlanState

PRIOR_STREAM = 1 << 40
"""Sets a prior's noise apart from that of the planner beside it."""
STIR = 0.05
"""Deviation of the actions of what rests: of several ways to rest, one stays where it should be."""


class PriorRollouts:
    """Candidates that a learned action prior offers: it acts, the world model imagines what comes of it, and it goes on
    from there.

    `steps` are those of a plan, T; it answers with L at a time. What comes of a candidate is one member's future, the
    members taking turns: candidate i's is imagined by member i mod E.

    The share `stop` of the candidates stands still from where it is imagined nearest to the goal on, if that is within
    `near` metres of it: what learned from an arm that always goes on passes a goal in mid-air. It does `hold_action`
    (A,) over and over, by default nothing, each candidate a little off it. `temperature` is the deviation of the noise
    that the prior answers from.
    """

    def __init__(
        self,
        model: WorldModel,
        prior: ActionPrior,
        space: ActionSpace,
        steps: int,
        stop: float = 0.0,
        near: float = 0.0,
        hold_action: Tensor | None = None,
        temperature: float = TEMPERATURE,
    ) -> None:
        self.model, self.prior, self.steps, self.temperature = model, prior, steps, temperature
        self.stop, self.near = stop, near
        self.hold_action = torch.zeros_like(space.low) if hold_action is None else hold_action.to(space.low)
        length = prior.architecture.segment
        # The space of one answer, for its noise: a stream a problem, as in a planner.
        self._answer = ActionSpace(low=space.low, high=space.high, steps=length)
        self._segments = -(-steps // length)

    def begin(self, goal: Tensor) -> None:
        """Takes the goal's embeddings (B, D)."""
        self._goal = self._where(goal)

    def observe(self, z: Tensor) -> None:
        """Takes the present embeddings (B, D)."""
        self._z = z

    def __call__(self, state: PlanState, count: int) -> Tensor:
        """Actions (B, count, T, A), as a `Proposal` gives them."""
        return self.imagine(state.seeds, state.count, count)

    def imagine(self, seeds: Sequence[int], plans: int, count: int) -> Tensor:
        """Actions (B, count, T, A) after so many plans; problem b's depend on seeds[b] and that number alone."""
        batch = len(self._z)
        resting = int(self.stop * count)
        draws = self._segments + bool(resting)
        noise = self._answer.noise([seed + PRIOR_STREAM for seed in seeds], plans, (draws, count))
        z, goal = (x.repeat_interleave(count, dim=0) for x in (self._z, self._goal))
        actions, path = [], []
        for draw in noise[: self._segments]:
            done = self.prior.sample(z, self._where(z), goal, draw.flatten(0, 1), temperature=self.temperature)
            actions.append(done)
            if resting or len(actions) < self._segments:
                path.append(self._follow(z, done, count))
                z = path[-1][:, -1]
        offered = torch.cat(actions, 1)[:, : self.steps].unflatten(0, (batch, count))
        if resting:
            future = torch.cat(path, 1).unflatten(0, (batch, count))[:, :resting]
            still = (self.hold_action + STIR * noise[-1, :, :resting, :1]).clamp(-1, 1)
            offered[:, :resting] = torch.where(self._on_the_way(future)[..., None], offered[:, :resting], still)
        return offered

    def _on_the_way(self, future: Tensor) -> Tensor:
        """Whether each step (B, n, T) of what leads to a future (B, n, H, D) comes before the rest; positions between
        model steps lie on straight lines."""
        start = self._where(self._z)[:, None, None].expand(-1, future.shape[1], -1, -1)
        apart = torch.cat((start, self._where(future)), 2) - self._goal[:, None, None]
        since = torch.arange(self.model.chunk).to(apart)[:, None] / self.model.chunk
        between = torch.lerp(apart[:, :, :-1, None], apart[:, :, 1:, None], since)
        distance = between.flatten(2, 3)[:, :, : self.steps].unflatten(-1, (-1, 3)).norm(dim=-1).amax(-1)
        nearest, when = distance.min(-1)
        steps = torch.arange(self.steps, device=when.device)
        return (steps < when[..., None]) | (nearest >= self.near)[..., None]

    def _follow(self, z: Tensor, actions: Tensor, count: int) -> Tensor:
        """Embeddings (B count, L / K, D) that follow actions (B count, L, A), from z (B count, D)."""
        z, actions = (x.unflatten(0, (-1, count)) for x in (z, actions))
        follows = z.new_empty(len(z), count, actions.shape[2] // self.model.chunk, z.shape[-1])
        for member in range(min(self.model.members, count)):
            turns = slice(member, None, self.model.members)
            start, done = z[:, turns].flatten(0, 1), actions[:, turns].flatten(0, 1)
            future = self.model.imagine(start, done[:, None], member)
            follows[:, turns] = future[:, 0].unflatten(0, (len(z), -1))
        return follows.flatten(0, 1)

    def _where(self, z: Tensor) -> Tensor:
        assert self.model.readout is not None
        return self.model.readout(z)
