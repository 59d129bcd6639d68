"""A planner on a learned world model as a policy to be recorded: what the model gets wrong becomes data."""

from __future__ import annotations

import numpy as np

from ..envs import World
from .closed_loop import Controller, observe_goals, stack
from .goals import HOLD, GoalManifest

NOISE = 0.5
"""Deviation of the noise on an action, whose range is [-1, 1]."""


class PlannerPolicy:
    """Plans towards one goal after another: first the environment's own, then another whenever one has held for `HOLD`
    steps, or has been tried for half to all of the environment's budget.

    The action of a share `noise` of the steps, at random, gets Gaussian noise of deviation `NOISE`.
    """

    def __init__(self, env: World, controller: Controller, rng: np.random.Generator, noise: float) -> None:
        self.env, self.controller, self.rng, self.noise = env, controller, rng, noise

    def reset(self) -> None:
        self._aim(self.env.goal_state())

    def act(self) -> np.ndarray:
        self._held = self._held + 1 if self.env.distance() < self.env.tolerance else 0
        if self._held == HOLD or self._left == 0:
            self._aim(self._another_goal())
        self._left -= 1
        if not self._planned:
            observation, state = self.env.observe(), self.env.save_state()
            self._planned = list(self.controller.act(stack([observation]), state[None])[0])
        action = self._planned.pop(0)
        if self.rng.random() < self.noise:
            action = action + NOISE * self.rng.normal(size=action.shape)
        return np.clip(action, -1.0, 1.0)

    def _aim(self, goal: np.ndarray) -> None:
        """Takes a simulator state (F,) as the goal and forgets the plan for another."""
        budget, seed = self.env.budget, int(self.rng.integers(2**20))
        self._held, self._planned = 0, []
        self._left = int(self.rng.integers(max(1, budget // 2), budget + 1))
        start = self.env.save_state()[None]
        manifest = GoalManifest(self.env.name, seed, budget, self.env.tolerance, start, goal[None])
        self.controller.begin(manifest, observe_goals(self.env, manifest), seed)

    def _another_goal(self) -> np.ndarray:
        """The goal of a reset, of seeds that neither a recording's episodes nor evaluations draw (seeds.py)."""
        state = self.env.save_state()
        self.env.reset(seed=int(self.rng.integers(2**32, 2**63)))
        goal = self.env.goal_state()
        self.env.load_state(state)
        return goal
