"""MuJoCo arm worlds behind Gymnasium: `make("push")` here, `gymnasium.make("forearm/Push-v0")` elsewhere."""

from __future__ import annotations

from typing import Any

from .rendering import select_backend

select_backend()  # before anything imports mujoco

import gymnasium  # noqa: E402

from .arm_env import ArmEnv, Observation  # noqa: E402
from .policies import POLICIES, make_policy  # noqa: E402
from .policy import Policy  # noqa: E402
from .rendering import RenderingError  # noqa: E402
from .tasks import TASKS, Task  # noqa: E402

__all__ = [
    "POLICIES",
    "TASKS",
    "ArmEnv",
    "Observation",
    "Policy",
    "RenderingError",
    "Task",
    "make",
    "make_policy",
]

GYMNASIUM_IDS = {
    "reach": "forearm/Reach-v0",
    "push": "forearm/Push-v0",
    "pickplace": "forearm/PickPlace-v0",
    "stack": "forearm/Stack-v0",
    "drawer": "forearm/Drawer-v0",
}


def make(name: str, **config: Any) -> ArmEnv:
    """The environment of a task by its short name.

    Raises:
        ValueError: naming the valid names.
    """
    if name not in TASKS:
        raise ValueError(f"env={name} is unknown; choose one of: {', '.join(TASKS)}")
    return ArmEnv(TASKS[name], **config)


for _name, _id in GYMNASIUM_IDS.items():
    if _id not in gymnasium.registry:
        gymnasium.register(
            _id, entry_point=f"{__name__}:make", kwargs={"name": _name}, max_episode_steps=TASKS[_name].budget
        )
