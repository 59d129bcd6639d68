"""Planners and energies by the names that configs use."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import signature
from typing import Any

from ..registry import Registry
from .actions import ActionSpace
from .base import Planner
from .cem import CEM
from .constraints import KeepOut, Limits
from .energy import Clipped, ControlEnergy, Energy, FunctionEnergy, LatentEnergy, TensorEnergy, Term
from .gradient import CEMGradient, Gradient
from .icem import ICEM
from .mppi import MPPI
from .shooting import RandomShooting


def _is_planner(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, Planner) and is_dataclass(part)


def _without_default(part: Any) -> str | None:
    """What is wrong with an energy's maker."""
    needed = [each.name for each in signature(part).parameters.values() if each.default is each.empty]
    return None if len(needed) <= 3 else f"takes (model, z, goal); {', '.join(needed[3:])} must have a default"


PLANNERS: Registry[type[Planner]] = Registry(
    "planner",
    {
        "cem": CEM,
        "icem": ICEM,
        "mppi": MPPI,
        "gradient": Gradient,
        "cem_gradient": CEMGradient,
        "shooting": RandomShooting,
    },
    check=lambda part: None if _is_planner(part) else "must be a dataclass that extends forearm.planner.Planner",
)
"""Algorithms: frozen dataclasses whose fields are their settings."""

ENERGIES: Registry[Callable[..., Energy]] = Registry("energy", {"latent": LatentEnergy}, check=_without_default)
"""What a future's distance from the goal is, each made of `(model, z, goal)` and settings of its own by keyword: a
`LatentModel` and the embeddings (B, D) of the present observation and of the goal."""

TERMS: dict[str, Callable[..., Term]] = {
    "latent": LatentEnergy,
    "control": ControlEnergy,
    "keep_out": KeepOut,
    "limits": Limits,
    "clipped": Clipped,
    "function": FunctionEnergy,
    "tensors": TensorEnergy,
}


def make_planner(name: str, space: ActionSpace, **settings: Any) -> Planner:
    """The planner called `name`.

    Raises:
        ValueError: for a name or a setting that does not exist, with those that do.
    """
    known = [field.name for field in fields(PLANNERS[name]) if field.name != "space"]
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"{key}={value!r}: planner {name!r} has no such setting; choose from {', '.join(known)}")
    return PLANNERS[name](space=space, **settings)
