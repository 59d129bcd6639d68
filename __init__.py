"""Forearm plans robot-arm actions by imagination.

It records episodes of MuJoCo arms, learns an action-conditioned latent world model from them, and picks actions in
closed loop with a sampling planner that minimises an energy. `forearm --help` lists what the command line offers;
`record`, `train`, `evaluate` and `load` do the same from Python (api.py). Everything is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .gymnasium_ids import register_when_imported
from .version import __version__

if TYPE_CHECKING:
    from .api import evaluate, load, record, train
    from .envs import make_world
    from .envs.settings import EnvSettings, RecordSettings
    from .evaluation.robot import Model, RobotPlan
    from .evaluation.settings import BenchSettings, EnergySettings, PlannerSettings, PlanningSettings
    from .models.settings import ModelSettings
    from .parts import register
    from .planner import CEM, ICEM, MPPI, CEMGradient, Gradient, RandomShooting
    from .training.settings import ObjectiveSettings, PriorSettings, ReadoutSettings, TemporalSettings, TrainSettings

register_when_imported()

_HOMES = {
    "api": ("evaluate", "load", "record", "train"),
    "envs": ("make_world",),
    "envs.settings": ("EnvSettings", "RecordSettings"),
    "evaluation.robot": ("Model", "RobotPlan"),
    "evaluation.settings": ("BenchSettings", "EnergySettings", "PlannerSettings", "PlanningSettings"),
    "models.settings": ("ModelSettings",),
    "parts": ("register",),
    "planner": ("CEM", "ICEM", "MPPI", "CEMGradient", "Gradient", "RandomShooting"),
    "training.settings": ("ObjectiveSettings", "PriorSettings", "ReadoutSettings", "TemporalSettings", "TrainSettings"),
}
"""Where each name lives."""

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "BenchSettings",
    "CEMGradient",
    "EnergySettings",
    "EnvSettings",
    "Gradient",
    "Model",
    "ModelSettings",
    "ObjectiveSettings",
    "PlannerSettings",
    "PlanningSettings",
    "PriorSettings",
    "RandomShooting",
    "ReadoutSettings",
    "RecordSettings",
    "RobotPlan",
    "TemporalSettings",
    "TrainSettings",
    "__version__",
    "evaluate",
    "load",
    "make_world",
    "record",
    "register",
    "train",
]


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
