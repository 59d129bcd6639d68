"""Planners and energies by the names that configs use."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from .actions import ActionSpace
from .base import Planner
from .cem import CEM
from .constraints import KeepOut, Limits
from .energy import Clipped, ControlEnergy, FunctionEnergy, LatentEnergy, TensorEnergy, Term
from .gradient import CEMGradient, Gradient
from .icem import ICEM
from .mppi import MPPI
from .shooting import RandomShooting

PLANNERS: dict[str, type[Planner]] = {
    "cem": CEM,
    "icem": ICEM,
    "mppi": MPPI,
    "gradient": Gradient,
    "cem_gradient": CEMGradient,
    "shooting": RandomShooting,
}

ENERGIES: dict[str, Callable[..., Term]] = {
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
    if name not in PLANNERS:
        raise ValueError(f"planner={name!r}: choose one of {', '.join(PLANNERS)}")
    known = [field.name for field in fields(PLANNERS[name]) if field.name != "space"]
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"{key}={value!r}: planner {name!r} has no such setting; choose from {', '.join(known)}")
    return PLANNERS[name](space=space, **settings)
