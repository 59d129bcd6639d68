"""Which world this is: a fingerprint of its compiled MuJoCo model, and the packages that it comes from.

The same name does not make the same world: a package that ships another XML, or a parameter set in Python, gives other
dynamics under the name that a recording, a manifest or a checkpoint remembers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from typing import Any
from weakref import WeakKeyDictionary

import mujoco
import numpy as np

_PLACES = re.compile(r"n?paths|\w+_pathadr|nbuffer")
"""Of a model: where on this machine its assets were read from, and what has its size from that."""

_as_made: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


def fingerprint(model: mujoco.MjModel) -> str:
    """SHA-256 of a compiled model: every array, size, option and name, wherever its assets were read from. It differs
    between versions of MuJoCo, which compile differently."""
    digest = sha256()
    for name, array in _fields(model):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def fingerprint_as_made(world: Any) -> str | None:
    """Fingerprint of a world's model as it was when it was first asked for, which `make_world` does: a reset may change
    the model. None for a world without one."""
    with suppress(TypeError):  # one that cannot be hashed is not remembered
        if world in _as_made:
            return _as_made[world]
    model = getattr(world, "model", None)
    found = fingerprint(model) if isinstance(model, mujoco.MjModel) else None
    with suppress(TypeError):
        _as_made[world] = found
    return found


def model_arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Copies of the model's arrays and numbers by MuJoCo's names, those of its options as `opt.gravity`: what a change
    is told by."""
    return {name: np.array(array) for name, array in _fields(model)}


def source_packages(*objects: Any) -> dict[str, str]:
    """Installed distributions, with their versions, that define the classes of `objects` and what these derive from,
    and those of their requirements that are built on MuJoCo themselves, such as dm_control."""
    owners = _owners()
    modules = {base.__module__.partition(".")[0] for thing in objects for base in type(thing).__mro__}
    names = {name for module in modules for name in owners.get(module, ())}
    names |= {needed for name in names for needed in _requirements(name) if "mujoco" in _requirements(needed)}
    return {name: version(name) for name in sorted(names)}


def _fields(owner: Any, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name in dir(owner):
        if name.startswith("_") or _PLACES.fullmatch(name):
            continue
        value = getattr(owner, name)
        if isinstance(value, bytes):
            yield prefix + name, np.frombuffer(value, np.uint8)
        elif isinstance(value, np.ndarray | float | int):
            yield prefix + name, np.asarray(value)
        elif not callable(value):  # options, statistics, visuals
            yield from _fields(value, f"{prefix}{name}.")


@cache
def _owners() -> Mapping[str, list[str]]:
    return packages_distributions()


def _requirements(name: str) -> set[str]:
    """Distributions that an installed one requires without extras; none of one that is not installed."""
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return set()
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in lines if "extra ==" not in line}
