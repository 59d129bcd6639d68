"""Planning by minimising an energy: action spaces, energies, CEM / MPPI / …, and the closed-loop agent."""

from .actions import ActionSpace
from .agent import Agent
from .base import Plan, Planner, PlanState, PlanStats, Proposal, Status
from .capture import Declared
from .cem import CEM
from .constraints import KeepOut, Limits
from .energy import (
    Clipped,
    ControlEnergy,
    Energy,
    FunctionEnergy,
    LatentEnergy,
    LatentModel,
    TensorEnergy,
    Term,
    as_energy,
    weighted,
)
from .gradient import CEMGradient, Gradient
from .icem import ICEM
from .mppi import MPPI
from .registry import ENERGIES, PLANNERS, make_planner
from .shooting import RandomShooting

__all__ = [
    "CEM",
    "ENERGIES",
    "ICEM",
    "MPPI",
    "PLANNERS",
    "ActionSpace",
    "Agent",
    "CEMGradient",
    "Clipped",
    "ControlEnergy",
    "Declared",
    "Energy",
    "FunctionEnergy",
    "Gradient",
    "KeepOut",
    "LatentEnergy",
    "LatentModel",
    "Limits",
    "Plan",
    "PlanState",
    "PlanStats",
    "Planner",
    "Proposal",
    "RandomShooting",
    "Status",
    "TensorEnergy",
    "Term",
    "as_energy",
    "make_planner",
    "weighted",
]
