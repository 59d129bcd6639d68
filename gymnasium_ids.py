"""`gymnasium.make("forearm/Push-v0")` works once `forearm` is imported, which must not import Gymnasium: the names are
registered as soon as Gymnasium is there."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

REGISTRATION = "gymnasium.envs.registration"
IDS = {
    "forearm/Reach-v0": ("reach", 30),
    "forearm/Push-v0": ("push", 60),
    "forearm/PickPlace-v0": ("pickplace", 80),
    "forearm/Stack-v0": ("stack", 80),
    "forearm/Drawer-v0": ("drawer", 60),
}
"""Each one's task, and the steps of an episode."""
ENTRY = "forearm.envs.goal_env:make_gymnasium"


def register(registration: Any) -> None:
    """Registers the names with Gymnasium's module `registration`, unless they are."""
    for name, (task, budget) in IDS.items():
        if name not in registration.registry:  # what makes it is imported when one is made
            registration.register(name, entry_point=ENTRY, kwargs={"name": task}, max_episode_steps=budget)


class _WhenImported:
    """Finds Gymnasium's registration as Python does, and has `register` called once that is loaded."""

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != REGISTRATION:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_and_register(module: ModuleType) -> None:
                load(module)
                register(module)

            spec.loader.exec_module = load_and_register
        return spec


def register_when_imported() -> None:
    if REGISTRATION in sys.modules:
        register(sys.modules[REGISTRATION])
    else:
        sys.meta_path.insert(0, _WhenImported())
