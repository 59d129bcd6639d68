"""Scripted experts: one skill a task, which solves it, and which play aims at ever new ends."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from .arm import ACTION_SCALE, CLOSED, OPEN
from .policy import ScriptedPolicy
from .tasks import CUBE_AREA, Push, Stack, random_command


class TaskExpert(ScriptedPolicy):
    """Brings the first tracked point to `target` (3,), metres; to the goal's unless play has aimed it elsewhere."""

    target: np.ndarray | None = None
    patience = 1  # how many times longer play pursues an end than it does other things

    @property
    def goal(self) -> np.ndarray:
        return self.env.goal_points[0] if self.target is None else self.target

    @abstractmethod
    def aim(self) -> None:
        """Draws a random end, as play does: also one that is no goal, or by a way that fails."""


class ReachExpert(TaskExpert):
    """Straight to a point."""

    def act(self) -> np.ndarray:
        return self.toward(self.goal)

    def aim(self) -> None:
        self.target = random_command(self.env.task.workspace, self.rng)[:3]


class PushExpert(TaskExpert):
    """Goes round the cube to the side away from the goal, then pushes through its centre, correcting."""

    precision = 0.012  # metres at which it lets the cube be

    def act(self) -> np.ndarray:
        cube, goal = self.bodies[0][:2], self.goal[:2]
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

    def aim(self) -> None:
        self.target = np.array([*self.rng.uniform(*CUBE_AREA), self.bodies[0][2]])

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


class GraspExpert(TaskExpert):
    """Above a thing, down, close, carry, hold; starts over when it slips away."""

    slip = np.zeros(3)  # metres added to where the thing is believed to be: how play misses on purpose
    miss = 0.012  # metres, the spread of slips

    def reset(self) -> None:
        self._closing = 0

    def act(self) -> np.ndarray:
        body = self.env.data.body(self.env.task.bodies[0])
        thing, tip, rotation = body.xpos + self.slip, self.env.tip, body.xmat
        # A cube looks the same every quarter turn: take the grasp that is least to turn.
        yaw = (np.arctan2(rotation[3], rotation[0]) + np.pi / 4) % (np.pi / 2) - np.pi / 4
        away = np.linalg.norm(thing[:2] - tip[:2])
        low = tip[2] - max(thing[2], 0.015) < 0.012
        if self._closing and (away > 0.03 or tip[2] - thing[2] > 0.03):
            self._closing = 0
        if self._closing or (low and away < 0.012):
            self._closing += 1
            if self._closing <= 3:
                return self.toward(self.command[:3], gripper=CLOSED)
            return self.toward(self._next(tip) + (tip - body.xpos), gripper=CLOSED)
        if away < 0.012 or (low and away < 0.02):
            return self.toward(np.array([*thing[:2], max(thing[2], 0.012), yaw]), gripper=OPEN)
        return self.toward(np.array([*self._above(thing, tip), yaw]), gripper=OPEN)

    def _slip(self) -> None:
        self.slip = self.rng.normal(scale=self.miss, size=3) if self.rng.random() < 0.35 else np.zeros(3)

    def _next(self, tip: np.ndarray) -> np.ndarray:
        """Where to bring what the tip (3,) holds next."""
        del tip
        return self.goal

    def _above(self, thing: np.ndarray, tip: np.ndarray) -> np.ndarray:
        """Where to bring the tip (3,) next so as to come down on a thing (3,)."""
        near = np.linalg.norm(thing[:2] - tip[:2]) < 0.04
        return np.array([*thing[:2], max(tip[2] if near else 0.09, 0.07)])


class PickPlaceExpert(GraspExpert):
    """Lifts the cube where it has to go far."""

    def aim(self) -> None:
        end = self.rng.uniform(*CUBE_AREA)
        self.target = np.array([*end, 0.02 if self.rng.random() < 0.4 else self.rng.uniform(0.06, 0.22)])
        self._slip()

    def _next(self, tip: np.ndarray) -> np.ndarray:
        if np.linalg.norm(self.goal[:2] - tip[:2]) > 0.03:
            return np.array([*self.goal[:2], max(self.goal[2], 0.08)])
        return self.goal


class StackExpert(PickPlaceExpert):
    """Over the base instead of through it; lets go of a cube that is where it should be, and leaves it from above."""

    patience = 2
    over = 0.11  # height, metres, at which a cube or a tip passes over a cube

    def act(self) -> np.ndarray:
        task, cube = self.env.task, self.bodies[0]
        assert isinstance(task, Stack)
        if np.linalg.norm(cube[:2] - self.goal[:2]) > 0.008 or abs(cube[2] - self.goal[2]) > 0.006:
            return super().act()
        self._closing = 0
        if self.command[4] < task.workspace.high[4]:
            return self.toward(self.command[:3], gripper=OPEN)
        return self.toward(self.goal + np.array([0.0, 0.0, task.retreat]), gripper=OPEN)

    def aim(self) -> None:
        super().aim()
        task = self.env.task
        assert isinstance(task, Stack)
        if self.rng.random() < 0.6:
            on_top = self.bodies[1] + np.array([0.0, 0.0, 2 * task.cube_half])
            self.target = on_top + self.rng.normal(scale=[0.008, 0.008, 0.002])

    def _next(self, tip: np.ndarray) -> np.ndarray:
        return self._pass_over(tip, super()._next(tip))

    def _above(self, thing: np.ndarray, tip: np.ndarray) -> np.ndarray:
        return self._pass_over(tip, super()._above(thing, tip))

    def _pass_over(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """The next point (3,) on a way that rises, crosses, and only then descends."""
        if np.linalg.norm(end[:2] - start[:2]) < 0.03:
            return end
        below = start[2] < self.over - 0.03
        return np.array([*(start if below else end)[:2], max(end[2], self.over)])


class DrawerExpert(GraspExpert):
    """Takes the handle and slides it."""

    patience = 2
    miss = 0.02

    def aim(self) -> None:
        joint, model = self.env.data.joint("drawer"), self.env.model.joint("drawer")
        slide = self.rng.uniform(*model.range) - joint.qpos
        self.target = self.bodies[0] + slide * joint.xaxis
        self._slip()


EXPERTS: dict[str, type[TaskExpert]] = {
    "reach": ReachExpert,
    "push": PushExpert,
    "pickplace": PickPlaceExpert,
    "stack": StackExpert,
    "drawer": DrawerExpert,
}
