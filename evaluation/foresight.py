"""Does what a plan imagines come true? The plans that a search picks are those that the model is most wrong about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..envs import World
from ..errors import SimulationError

LIFTED = 0.04
"""Metres above where it was from which an object counts as lifted."""
AHEAD = 5
"""Model steps after which imagined and true positions are compared."""


@dataclass(frozen=True)
class Foreseen:
    """Plans for B problems as they were made: simulator states (B, F), actions (B, T, A), and where the first tracked
    point was imagined to be, now and after each model step, (B, H + 1, 3) metres, or (E, B, H + 1, 3) by E members."""

    states: np.ndarray
    actions: np.ndarray
    positions: np.ndarray


@dataclass(frozen=True)
class Foresight:
    """`error_cm`: how far the tracked point was from where it was imagined after `AHEAD` model steps, mean over plans.
    `phantoms`: the share of plans that imagine an object lifted by `LIFTED`, and do not lift it. Both of whole plans,
    executed on the simulator to their end, those apart on which it diverges; each member of a model that has several
    counts by itself."""

    error_cm: float
    phantoms: float
    plans: int


def foresight(env: World, foreseen: Sequence[Foreseen], chunk: int) -> Foresight:
    """Executes plans of `chunk` environment steps a model step, each from the state it was made in. Where none goes
    through, figures of no plans are NaN."""
    errors, phantoms = [], []
    for plans in foreseen:
        for b, (state, actions) in enumerate(zip(plans.states, plans.actions, strict=True)):
            try:
                imagined, true = plans.positions[..., b, :, :], execute(env, state, actions)[::chunk]
            except SimulationError:
                continue
            ahead = min(AHEAD, len(true) - 1)
            errors.append(np.linalg.norm(imagined[..., ahead, :] - true[ahead], axis=-1))
            rise = [(path[..., 2] - path[..., :1, 2]).max(-1) for path in (imagined, true)]
            phantoms.append((rise[0] > LIFTED) & (rise[1] < LIFTED / 2))
    if not errors:
        return Foresight(np.nan, np.nan, 0)
    return Foresight(100 * float(np.mean(errors)), float(np.mean(phantoms)), len(errors))


def execute(env: World, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Where the first tracked point is, (T + 1, 3) metres, under actions (T, A) from a state (F,)."""
    env.load_state(state)
    path = [env.tracked_points()[0]]
    for action in actions:
        env.advance(action)
        path.append(env.tracked_points()[0])
    return np.array(path)
