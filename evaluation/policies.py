"""A planner on a learned world model as a policy to be recorded: what the model gets wrong becomes data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ..envs import World
from ..envs.settings import PLANNER, RecordSettings
from ..errors import UserError
from ..models.checkpoint import Checkpoint
from ..models.precision import rollout_precision
from ..settings import RENAMED, flat, key, tree, within
from .closed_loop import Controller, observe_goals, stack
from .controllers import LatentMPC
from .goals import HOLD, GoalManifest
from .models import fits_world, load_model
from .settings import EnergySettings, PlannerSettings, PlanningSettings, SceneSettings

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


@dataclass(frozen=True, kw_only=True)
class PlannerRecordSettings(RecordSettings, PlanningSettings):
    """What to record of a planner on a learned model."""

    policy: str = key(PLANNER, "planner", first=True)
    checkpoint: str | None = key(None, "folder, or name of a shipped one; null: that for env and obs", path=True)
    noise: float = key(0.2, "share of the steps whose action gets noise, of deviation 0.5")
    execute_steps: int = key(2, "environment steps executed of each plan before the next")

    def __post_init__(self) -> None:
        RecordSettings.__post_init__(self)
        PlanningSettings.__post_init__(self)
        within(self, 0, 1, "noise", why="it is a share of the steps")


RECORDED = {now: before for before, now in RENAMED.items()}
"""What recordings call these settings, so that those which Forearm 0.1 began are gone on with."""
UNTOLD = ("planner.execute", "planner.sigma_min", "planner.temperature", "energy.name")
"""What they tell only where it is not as usual."""


@dataclass(frozen=True)
class PlannerPolicies:
    """Makes planner policies as settings say, in whichever process records: each loads the checkpoint for itself, and
    makes sure that it is the one with the hash `sha256`. `precision` is what `auto` comes to."""

    settings: PlannerRecordSettings
    sha256: str
    precision: str = "auto"

    @classmethod
    def checked(cls, settings: PlannerRecordSettings, env: World) -> PlannerPolicies:
        """Raises UserError for whatever would keep a policy from being made."""
        checkpoint = _load(settings)
        fits_world(checkpoint, settings.checkpoint, env)
        policies = cls(settings, checkpoint.sha256)
        policies(PLANNER, env, np.random.default_rng(0))
        precision = rollout_precision(settings.precision, "cpu", checkpoint.model.width)
        return cls(settings, policies.sha256, precision)  # has not loaded anything itself, to be sent to others

    @property
    def about(self) -> dict[str, Any]:
        """All that decides what is planned, by key."""
        settings = self.settings
        about = {"checkpoint": self.sha256, "noise": settings.noise, "execute_steps": settings.execute_steps}
        groups = {"planner": tree(settings.planner), "energy": tree(settings.energy)}
        usual = {"planner": tree(PlannerSettings().other(settings.planner.name)), "energy": tree(EnergySettings())}
        told, usual = flat(groups), flat(usual)
        new = UNTOLD + ("planner.momentum",) * (settings.planner.name in ("mppi", "shooting"))
        told = {RECORDED.get(key, key): told[key] for key in told if key not in new or told[key] != usual.get(key)}
        return {**about, "precision": self.precision, **told, "energy.weights.goal": 1.0}

    def __call__(self, name: str, env: World, rng: np.random.Generator) -> PlannerPolicy:
        controller = LatentMPC(env, self._checkpoint, self.settings)
        return PlannerPolicy(env, controller, rng, self.settings.noise)

    @cached_property
    def _checkpoint(self) -> Checkpoint:
        torch.set_num_threads(1)  # a worker is one core, and sums must not depend on how many there are
        checkpoint = _load(self.settings)
        if checkpoint.sha256 != self.sha256:
            raise UserError(f"checkpoint={self.settings.checkpoint}: has changed since the recording began")
        return checkpoint


def _load(settings: PlannerRecordSettings) -> Checkpoint:
    scene = SceneSettings(env=settings.env, obs=settings.obs)
    return load_model(scene, settings.checkpoint, torch.device("cpu"))
