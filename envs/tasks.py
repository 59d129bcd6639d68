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

    Tracked are the `objects` (bodies with a free joint) and the `parts` (bodies on a slide joint), whose joints bear
    their names, or the gripper's tip where there are neither. `tolerance` is in metres; `budget` is the environment
    steps an episode may take.
    """

    name: str
    scene: str
    workspace: Workspace
    tolerance: float
    budget: int
    objects: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    @property
    def bodies(self) -> tuple[str, ...]:
        """What can be moved, in the order of the `state` observation."""
        return self.objects + self.parts

    @property
    def tracked(self) -> slice:
        """The columns of the `state` observation with the first tracked point (3,), metres."""
        return slice(9, 12) if self.bodies else slice(0, 3)

    @abstractmethod
    def place_start(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Puts arm and objects where an episode begins."""

    @abstractmethod
    def place_goal(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        """Moves a started simulation into a goal configuration that can be reached from where it is."""


def random_command(workspace: Workspace, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(workspace.low, workspace.high)


def command_away(workspace: Workspace, rng: np.random.Generator, points: np.ndarray, gap: float) -> np.ndarray:
    """A random command (5,) that keeps the tip more than `gap` metres from points (…, 2 or 3)."""
    while True:
        command = random_command(workspace, rng)
        if np.linalg.norm(command[: points.shape[-1]] - points, axis=-1).min() > gap:
            return command


def place_object(data: mujoco.MjData, name: str, position: np.ndarray, yaw: float) -> None:
    joint = data.joint(name)
    joint.qpos[:3] = position
    joint.qpos[3:] = np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)
    joint.qvel[:] = 0.0


def place_holding(arm: Arm, data: mujoco.MjData, position: np.ndarray, yaw: float, half: float) -> None:
    """Puts the gripper around what is at a position (3,) and `half` metres to either side of it."""
    arm.place(data, np.array([*position, yaw, half]))
    data.ctrl[-1] = 0.0  # the fingers press on what they hold


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
        arm.place(data, command_away(self.workspace, rng, cube, self.contact + 0.015))

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
class Grasp(Task):
    """Tasks that begin with cubes which lie apart on the table and can be grasped, the open gripper away from them."""

    cube_half: float = 0.02
    apart: float = 0.10  # metres between cubes: an open finger fits between them

    def place_start(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        cubes = np.empty((0, 3))
        for name in self.objects:
            while True:
                cube = np.array([*rng.uniform(*CUBE_AREA), self.cube_half])
                if (np.linalg.norm(cubes - cube, axis=1) > self.apart).all():
                    break
            place_object(data, name, cube, rng.uniform(-np.pi / 4, np.pi / 4))
            cubes = np.vstack([cubes, cube])
        command = command_away(self.workspace, rng, cubes, 0.12)
        command[4] = self.workspace.high[4]
        arm.place(data, command)


@dataclass(frozen=True)
class PickPlace(Grasp):
    """Carry the cube to where it is in the goal: in the air between the fingers, or on the table."""

    in_air: float = 0.5  # share of goals above the table

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
        place_holding(arm, data, cube, yaw, self.cube_half)


@dataclass(frozen=True)
class Stack(Grasp):
    """Put the cube on top of the other, the base, which stays where it is.

    In the goal the open gripper is above them, and nothing has been turned on the way. The tolerance is half an edge:
    a cube that lies beside the base, or leans on it, is too low.
    """

    retreat: float = 0.06  # metres from the stacked cube's centre up to the tip

    def place_goal(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        del rng  # where the base lies leaves no choice
        cube, base = (data.joint(name).qpos for name in self.objects)
        cube[:3] = base[:3] + np.array([0.0, 0.0, 2 * self.cube_half])
        yaw = 2 * np.arctan2(cube[6], cube[3])
        arm.place(data, np.array([*cube[:2], cube[2] + self.retreat, yaw, self.workspace.high[4]]))


@dataclass(frozen=True)
class Drawer(Task):
    """Pull or push the drawer by its handle to where it is in the goal, in which the gripper holds the handle."""

    handle_half: float = 0.006
    slide: float = 0.06  # metres from start to goal at least
    clear: float = 0.12  # height, metres, at which the gripper passes over the handle

    def place_start(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        data.joint("drawer").qpos[0] = rng.uniform(*arm.model.joint("drawer").range)
        command = random_command(self.workspace, rng)
        command[2] = rng.uniform(self.clear, self.workspace.high[2])
        arm.place(data, command)

    def place_goal(self, arm: Arm, data: mujoco.MjData, rng: np.random.Generator) -> None:
        joint = data.joint("drawer")
        start = joint.qpos[0]
        while True:
            joint.qpos[0] = rng.uniform(*arm.model.joint("drawer").range)
            if abs(joint.qpos[0] - start) > self.slide:
                break
        mujoco.mj_kinematics(arm.model, data)
        place_holding(arm, data, data.body("drawer").xpos, 0.0, self.handle_half)


GRASP_WORKSPACE = Workspace.of(x=(0.36, 0.64), y=(-0.19, 0.19), z=(0.012, 0.25), yaw=(-1.0, 1.0), opening=(0, 0.04))
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
            workspace=GRASP_WORKSPACE,
            tolerance=0.04,
            budget=80,
            objects=("cube",),
        ),
        Stack(
            name="stack",
            scene="stack.xml",
            workspace=GRASP_WORKSPACE,
            tolerance=0.02,
            budget=80,
            objects=("cube", "base"),
        ),
        Drawer(
            name="drawer",
            scene="drawer.xml",
            workspace=Workspace.of(x=(0.36, 0.64), y=(-0.16, 0.08), z=(0.05, 0.25), yaw=(0, 0), opening=(0, 0.04)),
            tolerance=0.012,
            budget=60,
            parts=("drawer",),
        ),
    )
}
