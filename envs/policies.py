"""Scripted policies: `random`, `expert` (solves the task, sees the simulator) and `play` (what recordings are made of).

Play is the expert's skills aimed at ever new ends, made noisy and interrupted by wandering and random stretches on
purpose: a world model that has only seen success believes in success.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from .arm import ACTION_SCALE
from .arm_env import ArmEnv
from .tasks import CUBE_AREA, Push, random_command
from .world import RandomPolicy

OPEN, CLOSED = 1.0, -1.0


class Policy(ABC):
    """Chooses actions (5,) in [-1, 1] for one environment; all randomness comes from `rng`."""

    def __init__(self, env: ArmEnv, rng: np.random.Generator) -> None:
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
    def cube(self) -> np.ndarray:
        return self.env.data.body("cube").xpos

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


class ReachExpert(Policy):
    """Straight to a point (3,), the goal's by default."""

    target: np.ndarray | None = None

    def act(self) -> np.ndarray:
        return self.toward(self.env.goal_points[0] if self.target is None else self.target)


class PushExpert(Policy):
    """Goes round the cube to the side away from the target (2,), then pushes through its centre, correcting."""

    target: np.ndarray | None = None
    precision = 0.012  # metres at which it lets the cube be

    def act(self) -> np.ndarray:
        cube = self.cube[:2]
        goal = self.env.goal_points[0, :2] if self.target is None else self.target
        tip = self.command[:2]
        task = self.env.task
        assert isinstance(task, Push)
        way = goal - cube
        left = float(np.linalg.norm(way))
        if left < self.precision:
            return np.zeros(5)
        direction = way / left
        offset = tip - cube
        along, aside = float(offset @ direction), float(offset @ np.array([-direction[1], direction[0]]))
        if along < -0.02 and abs(aside) < 0.010 + 0.1 * max(-along - task.contact, 0.0):
            step = np.clip(left - 0.5 * self.precision, 0.004, ACTION_SCALE[0])
            gap = max(-along - task.contact, 0.0)
            line = cube + direction * (along + min(gap + step, ACTION_SCALE[0]))  # back onto the line, then on
            return self.toward(line)
        behind = cube - direction * (task.contact + 0.022)
        return self.toward(self._around(tip, behind, cube, task.contact + 0.012))

    def _around(self, tip: np.ndarray, target: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
        """Next point (2,) on a way from tip to target that stays `radius` away from the centre."""
        path = target - tip
        length = float(np.linalg.norm(path))
        nearest = np.clip((centre - tip) @ path / max(length**2, 1e-9), 0.0, 1.0)
        if np.linalg.norm(tip + nearest * path - centre) >= radius:
            return target
        offset = tip - centre
        angle, goal = np.arctan2(offset[1], offset[0]), np.arctan2(*(target - centre)[::-1])
        turn = (goal - angle + np.pi) % (2 * np.pi) - np.pi
        stride = np.clip(turn, -0.6, 0.6)
        out = max(radius + 0.008, min(float(np.linalg.norm(offset)), radius + 0.03))
        return centre + out * np.array([np.cos(angle + stride), np.sin(angle + stride)])


class PickPlaceExpert(Policy):
    """Above the cube, down, close, carry, hold; starts over when the cube slips away."""

    target: np.ndarray | None = None
    slip = np.zeros(3)  # metres added to where the cube is believed to be: how play misses on purpose

    def reset(self) -> None:
        self._closing = 0

    def act(self) -> np.ndarray:
        goal = self.env.goal_points[0] if self.target is None else self.target
        cube, tip = self.cube + self.slip, self.env.data.site("tip").xpos
        # The cube looks the same every quarter turn: take the grasp that is least to turn.
        rotation = self.env.data.body("cube").xmat
        yaw = (np.arctan2(rotation[3], rotation[0]) + np.pi / 4) % (np.pi / 2) - np.pi / 4
        away = np.linalg.norm(cube[:2] - tip[:2])
        low = tip[2] - max(cube[2], 0.015) < 0.012
        if self._closing and (away > 0.03 or tip[2] - cube[2] > 0.03):
            self._closing = 0
        if self._closing or (low and away < 0.012):
            self._closing += 1
            if self._closing <= 3:
                return self.toward(self.command[:3], gripper=CLOSED)
            lift = goal.copy()
            if np.linalg.norm(goal[:2] - tip[:2]) > 0.03:
                lift[2] = max(goal[2], 0.08)
            return self.toward(lift + (tip - self.cube), gripper=CLOSED)
        if away < 0.012 or (low and away < 0.02):
            return self.toward(np.array([*cube[:2], max(cube[2], 0.012), yaw]), gripper=OPEN)
        above = np.array([*cube[:2], max(tip[2] if away < 0.04 else 0.09, 0.07), yaw])
        return self.toward(above, gripper=OPEN)


EXPERTS: dict[str, Callable[[ArmEnv, np.random.Generator], Policy]] = {
    "reach": ReachExpert,
    "push": PushExpert,
    "pickplace": PickPlaceExpert,
}


class PlayPolicy(Policy):
    """Segments of 4 to 25 steps, each one of: the expert's skill toward a random end, moving to a random place, a
    random walk, resting; with a noise level of its own. Play with cubes seeks contact and often misses."""

    def reset(self) -> None:
        self._skill = EXPERTS[self.env.name](self.env, self.rng)
        self._walk = RandomPolicy(self.env, self.rng)
        self._left = 0

    def act(self) -> np.ndarray:
        if self._left == 0:
            self._begin_segment()
        self._left -= 1
        action = self._segment()
        return np.clip(action + self._noise * self.rng.normal(size=5), -1.0, 1.0)

    def _begin_segment(self) -> None:
        rng = self.rng
        self._left = int(rng.integers(4, 26))
        self._noise = rng.choice([0.05, 0.2, 0.5])
        kind = rng.choice(["skill", "move", "walk", "rest"], p=[0.62, 0.16, 0.17, 0.05])
        if kind == "skill":
            self._aim()
            self._segment = self._skill.act
        elif kind == "move":
            place = random_command(self.env.task.workspace, rng)[:4]
            if self.env.task.objects and rng.random() < 0.5:
                place[:2] = self.cube[:2] + rng.normal(scale=0.05, size=2)
            gripper, speed = rng.choice([OPEN, CLOSED, 0.0]), rng.uniform(0.4, 1.0)
            self._segment = lambda: self.toward(place, speed, gripper)
        elif kind == "walk":
            self._walk.reset()
            self._segment = self._walk.act
        else:
            self._segment = lambda: np.zeros(5)

    def _aim(self) -> None:
        rng, skill = self.rng, self._skill
        skill.reset()
        end = rng.uniform(*CUBE_AREA)
        if isinstance(skill, PushExpert):
            skill.target = end
        elif isinstance(skill, PickPlaceExpert):
            skill.target = np.array([*end, 0.02 if rng.random() < 0.4 else rng.uniform(0.06, 0.22)])
            skill.slip = rng.normal(scale=0.012, size=3) if rng.random() < 0.35 else np.zeros(3)
        elif isinstance(skill, ReachExpert):
            skill.target = random_command(self.env.task.workspace, rng)[:3]


class ExpertPolicy(Policy):
    """The task's expert, aimed at the environment's goal."""

    def reset(self) -> None:
        self._skill = EXPERTS[self.env.name](self.env, self.rng)

    def act(self) -> np.ndarray:
        return self._skill.act()


POLICIES = {"play": PlayPolicy, "random": RandomPolicy, "expert": ExpertPolicy}
