"""What a learned action prior offers a planner."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..models.prior import ActionPrior
from ..models.world_model import WorldModel
from ..planner import ActionSpace, PlanState

PRIOR_STREAM = 1 << 40
"""Sets a prior's noise apart from that of the planner beside it."""


class PriorRollouts:
    """Candidates that a learned action prior offers: it acts, the world model imagines what comes of it, and it goes on
    from there.

    `steps` are those of a plan, T; it answers with L at a time. What comes of a candidate is one member's future, the
    members taking turns: candidate i's is imagined by member i mod E.
    """

    def __init__(self, model: WorldModel, prior: ActionPrior, space: ActionSpace, steps: int) -> None:
        self.model, self.prior, self.steps = model, prior, steps
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
        noise = self._answer.noise([seed + PRIOR_STREAM for seed in seeds], plans, (self._segments, count))
        z, goal = (x.repeat_interleave(count, dim=0) for x in (self._z, self._goal))
        actions = []
        for draw in noise:
            done = self.prior.sample(z, self._where(z), goal, draw.flatten(0, 1))
            actions.append(done)
            if len(actions) < self._segments:
                z = self._follow(z, done, count)
        return torch.cat(actions, 1)[:, : self.steps].unflatten(0, (batch, count))

    def _follow(self, z: Tensor, actions: Tensor, count: int) -> Tensor:
        """Embeddings (B count, D) after actions (B count, L, A), from z (B count, D)."""
        z, actions = (x.unflatten(0, (-1, count)) for x in (z, actions))
        follows = torch.empty_like(z)
        for member in range(min(self.model.members, count)):
            turns = slice(member, None, self.model.members)
            start, done = z[:, turns].flatten(0, 1), actions[:, turns].flatten(0, 1)
            future = self.model.imagine(start, done[:, None], member)
            follows[:, turns] = future[:, 0, -1].unflatten(0, (len(z), -1))
        return follows.flatten(0, 1)

    def _where(self, z: Tensor) -> Tensor:
        assert self.model.readout is not None
        return self.model.readout(z)
