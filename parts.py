"""Parts of one's own: `@forearm.register("planner", "mine")`, and it works by that name wherever names do."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

from .registry import Registry
from .settings import unknown

P = TypeVar("P")

KINDS = {
    "world": "envs.registry:WORLDS",
    "planner": "planner.registry:PLANNERS",
    "energy": "planner.registry:ENERGIES",
    "encoder": "models.encoders:ENCODERS",
    "predictor": "models.predictor:PREDICTORS",
    "objective": "training.objectives:OBJECTIVES",
    "model": "models.foreign:MODELS",
}
"""Where each kind's registry lives, which says what a part of it is."""


def registry(kind: str) -> Registry[Any]:
    """The registry of a kind. SettingError naming the kinds."""
    if kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    module, name = KINDS[kind].split(":")
    return getattr(import_module(f".{module}", __package__), name)


def register(kind: str, name: str) -> Callable[[P], P]:
    """A decorator that makes a world's maker, a planner, an energy, an encoder, a predictor, an objective or a foreign
    model's maker known by a name.

    Worker processes know it if this runs as the program's main module is imported, outside of
    `if __name__ == "__main__"`, or in a plug-in: `forearm --plugin FILE COMMAND …`, or a package's entry point in
    `forearm.KINDs`.
    """
    return registry(kind).register(name)
