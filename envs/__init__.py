"""MuJoCo worlds behind Gymnasium: `make("push")` here, `gymnasium.make("forearm/Push-v0")` elsewhere."""

from __future__ import annotations

from functools import partial
from typing import Any

from .rendering import select_backend

select_backend()  # before anything imports mujoco

from ..errors import SimulationError  # noqa: E402
from .arm_env import ArmEnv, as_arm  # noqa: E402
from .check import WorldWarning, check_world  # noqa: E402
from .gymnasium_world import GymnasiumWorld  # noqa: E402
from .policies import POLICIES  # noqa: E402
from .registry import WORLDS, make_world, register, world_names  # noqa: E402
from .rendering import RenderingError  # noqa: E402
from .tasks import TASKS, Task  # noqa: E402
from .world import Observation, Policy, World, action_size, make_policy, observation_shapes  # noqa: E402

__all__ = [
    "POLICIES",
    "TASKS",
    "WORLDS",
    "ArmEnv",
    "GymnasiumWorld",
    "Observation",
    "Policy",
    "RenderingError",
    "SimulationError",
    "Task",
    "World",
    "WorldWarning",
    "action_size",
    "as_arm",
    "check_world",
    "make",
    "make_policy",
    "make_world",
    "observation_shapes",
    "register",
    "world_names",
]


def make(name: str, **config: Any) -> ArmEnv:
    """The arm at a task, by the task's name; `make_world` makes any world by its name.

    Raises:
        ValueError: naming the valid names.
    """
    if name not in TASKS:
        raise ValueError(f"env={name} is unknown; choose one of: {', '.join(TASKS)}")
    return ArmEnv(TASKS[name], **config)


def _ogbench(name: str, pixels: bool = False, size: int = 64) -> World:
    from .ogbench_world import make  # only where it is asked for, because it is an extra

    return make(name, pixels, size)


for _task in TASKS.values():
    register(_task.name, partial(ArmEnv, _task))

for _name in ("cube-single", "cube-double", "scene"):
    register(f"ogbench/{_name}", partial(_ogbench, f"ogbench/{_name}"))

WORLDS.own = frozenset(WORLDS.parts)  # those that come with Forearm keep their promises
