"""Which world this is: a fingerprint of its compiled MuJoCo model, and the packages that it comes from.

The same name does not make the same world: a package that ships another XML, or a parameter set in Python, gives other
dynamics under the name that a recording, a manifest or a checkpoint remembers.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

import mujoco
import numpy as np


def fingerprint(model: mujoco.MjModel) -> str:
    """SHA-256 of the compiled model as MuJoCo saves it: every array, option and name, sizes included."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return sha256(buffer.tobytes()).hexdigest()


def model_arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Copies of the model's arrays by MuJoCo's names, those of its options as `opt.gravity`: what a change is told by."""
    arrays: dict[str, np.ndarray] = {}
    for prefix, owner in (("", model), ("opt.", model.opt), ("stat.", model.stat)):
        for name in dir(owner):
            if not name.startswith("_") and isinstance(value := getattr(owner, name), np.ndarray | float | int):
                arrays[prefix + name] = np.array(value)
    return arrays


def source_packages(*objects: Any) -> dict[str, str]:
    """Installed distributions, with their versions, that define the classes of `objects` and what these derive from."""
    owners = packages_distributions()
    modules = {base.__module__.partition(".")[0] for thing in objects for base in type(thing).__mro__}
    names = {name for module in modules for name in owners.get(module, ())}
    found: dict[str, str] = {}
    for name in sorted(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # an import path without a distribution of its own
            continue
    return found
