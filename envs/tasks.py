"""Tasks: what lies on the table, where the arm may go, and when a goal is reached.

A task places starts and goals; it knows nothing of rendering, Gymnasium or learning. A goal is a whole simulator
state, so that it can be observed like any other: a goal image is a real rendering.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import mujoco
import numpy as np

from .arm import Arm, Workspace


@dataclass(frozen=True)
class Task(ABC):
    """One manipulation problem on the arm: bring the tracked points to where they are in the goal.

    Tracked are the `objects` (bodies with a free joint), or the gripper's tip where there are none. `tolerance` is in
    metres; `budget` is the environment steps an episode may take.
    """

    name: str
    scene: str
    workspace: Workspace
    tolerance: float
    budget: int
    objects: tuple[str, ...] = ()

    @property
    def tracked(self) -> slice:
        """The columns of the `state` observation with the first tracked point (3,), metres."""
        return slice(9, 12) if self.objects else slice(0, 3)

    @abstractmethod
    def place_start(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Puts arm and objects where an episode begins."""

    @abstractmethod
    def place_goal(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Moves a started simulation into a goal configuration that can be reached from where it is."""


def random_command(workspace: Workspace, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(workspace.low, workspace.high)


def place_object(data: mujoco.MjData, name: str, position: np.ndarray, yaw: float) -> None:
    joint = data.joint(name)
    joint.qpos[:3] = position
    joint.qpos[3:] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
    joint.qvel[:] = 0.0


class Reach(Task):
    """Move the gripper's tip to where it is in the goal."""

    def place_start(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        arm.place(data, random_command(self.workspace, rng))

    def place_goal(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        mujoco.mj_kinematics(arm.model, data)
        start = data.site("tip").xpos.copy()
        while True:
            command = random_command(self.workspace, rng)
            if np.linalg.norm(command[:3] - start) > 4 * self.tolerance:
                break
        arm.place(data, command)


CUBE_AREA = np.array([[0.41, -0.12], [0.57, 0.12]])
"""Where cubes start and end, metres: low and high of (x, y); the workspace goes far enough round it to push inwards."""


@dataclass(frozen=True)
class Push(Task):
    """Push the cube along the table to where it is in the goal; the gripper stays closed and low.

    In the goal the gripper rests against the cube, on the side it would push from.
    """

    cube_half: float = 0.03
    contact: float = 0.047  # metres from the cube's centre to the tip of a gripper that touches it
    push: tuple[float, float] = (0.08, 0.20)  # metres from start to goal

    def place_start(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        cube = rng.uniform(*CUBE_AREA)
        place_object(data, "cube", np.array([*cube, self.cube_half]), rng.uniform(-np.pi, np.pi))
        while True:
            command = random_command(self.workspace, rng)
            if np.linalg.norm(command[:2] - cube) > self.contact + 0.015:
                break
        arm.place(data, command)

    def place_goal(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        start = data.joint("cube").qpos[:2].copy()
        while True:
            angle, length = rng.uniform(-np.pi, np.pi), rng.uniform(*self.push)
            direction = np.array([np.cos(angle), np.sin(angle)])
            cube = start + length * direction
            tip = cube - self.contact * direction
            inside = np.all(cube >= CUBE_AREA[0]) and np.all(cube <= CUBE_AREA[1])
            if inside and np.all(tip >= self.workspace.low[:2]) and np.all(tip <= self.workspace.high[:2]):
                break
        # A cube that is pushed along turns a flat side to the gripper.
        place_object(data, "cube", np.array([*cube, self.cube_half]), angle)
        arm.place(data, np.array([*tip, *arm.command(data)[2:]]))


@dataclass(frozen=True)
class PickPlace(Task):
    """Carry the cube to where it is in the goal: in the air between the fingers, or on the table."""

    cube_half: float = 0.02
    in_air: float = 0.5  # share of goals above the table

    def place_start(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        cube = np.array([*rng.uniform(*CUBE_AREA), self.cube_half])
        place_object(data, "cube", cube, rng.uniform(-np.pi / 4, np.pi / 4))
        while True:
            command = random_command(self.workspace, rng)
            if np.linalg.norm(command[:3] - cube) > 0.12:
                break
        command[4] = self.workspace.high[4]
        arm.place(data, command)

    def place_goal(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        start = data.joint("cube").qpos[:3].copy()
        while True:
            cube = np.array([*rng.uniform(*CUBE_AREA), self.cube_half])
            if rng.random() < self.in_air:
                cube[2] = rng.uniform(0.08, 0.20)
            if np.linalg.norm(cube - start) > 2 * self.tolerance:
                break
        yaw = rng.uniform(-np.pi / 4, np.pi / 4)
        place_object(data, "cube", cube, yaw)
        arm.place(data, np.array([*cube, yaw, self.cube_half]))
        data.ctrl[-1] = 0.0  # the fingers press on the cube that they hold


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Reach(
            name="reach",
            scene="reach.xml",
            workspace=Workspace.of(x=(0.38, 0.60), y=(-0.15, 0.15), z=(0.02, 0.16), yaw=(0, 0), opening=(0, 0)),
            tolerance=0.025,
            budget=30,
        ),
        Push(
            name="push",
            scene="push.xml",
            workspace=Workspace.of(x=(0.33, 0.65), y=(-0.20, 0.20), z=(0.015, 0.015), yaw=(0, 0), opening=(0, 0)),
            tolerance=0.03,
            budget=60,
            objects=("cube",),
        ),
        PickPlace(
            name="pickplace",
            scene="pickplace.xml",
            workspace=Workspace.of(
                x=(0.36, 0.64), y=(-0.19, 0.19), z=(0.012, 0.25), yaw=(-1.0, 1.0), opening=(0, 0.04)
            ),
            tolerance=0.04,
            budget=80,
            objects=("cube",),
        ),
    )
}
