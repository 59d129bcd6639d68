"""The arm in Gymnasium's goal convention (`GoalEnv` of Gymnasium-Robotics), which hindsight experience replay asks for:
`gymnasium.make("forearm/Push-v0", goal_conditioned=True)`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from . import make
from .arm_env import ArmEnv
from .world import Observation


class GoalConditioned(gymnasium.Env[dict[str, Any], np.ndarray]):
    """An arm whose observation holds the goal, and whose reward is a function of both.

    Observation: `observation` (S,) float32, the arm's `state`; `achieved_goal` and `desired_goal` (3 G,) float64, where
    the G tracked points are and where they should be, metres. Where the arm observes pixels, also `pixels` and
    `desired_pixels` (size, size, 3) uint8, the view of now and that of the goal.

    Actions, reward, `distance` and `success` are the arm's; the convention calls success `info["is_success"]`, so that
    is there too.
    """

    metadata = ArmEnv.metadata

    def __init__(self, arm: ArmEnv) -> None:
        self.arm = arm
        self.render_mode = arm.render_mode
        self.action_space = arm.action_space
        parts = arm.observation_space.spaces  # pyright: ignore[reportAttributeAccessIssue]
        points = Box(-np.inf, np.inf, (arm.tracked_points().size,), np.float64)
        spaces = {"observation": parts["state"], "achieved_goal": points, "desired_goal": points}
        if "pixels" in parts:
            spaces |= {"pixels": parts["pixels"], "desired_pixels": parts["pixels"]}
        self.observation_space = Dict(spaces)
        self._goal: Observation = {}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        observation, info = self.arm.reset(seed=seed, options=options)
        self._goal = {"desired_goal": self.arm.goal_points.ravel()}
        if "pixels" in observation:
            self._goal["desired_pixels"] = self.arm.goal_observation()["pixels"]
        return self._with_goal(observation), self._told(info)

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        parts, _, _, _, info = self.arm.step(action)
        observation, info = self._with_goal(parts), self._told(info)
        goals = observation["achieved_goal"], observation["desired_goal"], info
        reward = float(self.compute_reward(*goals))
        return observation, reward, self.compute_terminated(*goals), self.compute_truncated(*goals), info

    def compute_reward(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> Any:
        """Minus the metres that the worst tracked point is from its goal, (…), of goals (…, 3 G)."""
        apart = np.asarray(achieved_goal) - np.asarray(desired_goal)
        return -np.linalg.norm(apart.reshape(*apart.shape[:-1], -1, 3), axis=-1).max(axis=-1)

    def compute_terminated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> bool:
        """Never: a goal must be held."""
        return False

    def compute_truncated(self, achieved_goal: np.ndarray, desired_goal: np.ndarray, info: Any) -> bool:
        """Not by this: `gymnasium.make` puts the limit of steps around it."""
        return False

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.arm.render()

    def close(self) -> None:
        self.arm.close()

    def _with_goal(self, parts: Observation) -> Observation:
        observed = {"observation": parts["state"], "achieved_goal": self.arm.tracked_points().ravel()}
        shown = {"pixels": parts["pixels"]} if "pixels" in parts else {}
        return {**observed, **shown, **{name: value.copy() for name, value in self._goal.items()}}

    def _told(self, info: dict[str, Any]) -> dict[str, Any]:
        return info | {"is_success": info["success"]}


def make_gymnasium(name: str, goal_conditioned: bool = False, **config: Any) -> ArmEnv | GoalConditioned:
    """What `gymnasium.make` makes. Goal-conditioned it has no pixels, and needs no OpenGL, unless `pixels=True`."""
    if not goal_conditioned:
        return make(name, **config)
    return GoalConditioned(make(name, **{"pixels": False, **config}))
