"""What a scripted policy is: it sees the simulator, and moves the arm's command."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import mujoco
import numpy as np

from .arm import ACTION_SCALE, Arm
from .tasks import Task
from .world import World


class ArmWorld(World, Protocol):
    """What a scripted policy looks into: a task on the arm, as `ArmEnv` is."""

    task: Task
    arm: Arm
    model: mujoco.MjModel
    data: mujoco.MjData
    goal_points: np.ndarray
    """Where the task's tracked points are in the goal, (G, 3) metres."""

    @property
    def tip(self) -> np.ndarray:
        """Where the gripper's tip is, (3,) metres."""
        ...


class ScriptedPolicy(ABC):
    """Chooses actions (5,) in [-1, 1] for one environment; all randomness comes from `rng`."""

    def __init__(self, env: ArmWorld, rng: np.random.Generator) -> None:
        self.env = env
        self.rng = rng
        self.reset()

    def reset(self) -> None:  # noqa: B027 (most have nothing to forget)
        """Forgets the episode before."""

    @abstractmethod
    def act(self) -> np.ndarray:
        """The next action (5,)."""

    @property
    def command(self) -> np.ndarray:
        return self.env.arm.command(self.env.data)

    @property
    def bodies(self) -> list[np.ndarray]:
        """Where what can be moved is, (3,) each, metres."""
        return [self.env.data.body(name).xpos for name in self.env.task.bodies]

    def toward(self, target: np.ndarray, speed: float = 1.0, gripper: float = 0.0) -> np.ndarray:
        """Action that moves the commanded position and yaw to a target (x, y, z[, yaw]) at most `speed` of full."""
        action = np.zeros(5)
        n = len(target)
        delta = (target - self.command[:n]) / ACTION_SCALE[:n]
        reach = np.abs(delta[:3]).max()
        delta[:3] *= min(1.0, speed / max(reach, 1e-9))
        action[:n] = np.clip(delta, -1.0, 1.0)
        action[4] = gripper
        return action
