"""The success predicates of CLEAR-LeWM, a strict evaluator of world models on OGBench's cube, beside our own rule.

Its windows are 25 steps of play long, unsolved at the start, with a budget of 50 steps. *Moderate*: the cube comes
within 4 cm of its goal at some step. *Strict*: it is within 3 cm, and turned as in the goal to within 15 degrees, at
three steps in a row; rotations that look the same on a cube count as the same. Both are read off recorded simulator
states, so they judge the very episodes that our rule judges (github.com/DavidSunok/CLEAR-LeWM, protocols `moderate` and
`strict`).
"""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from ..envs import World
from ..envs.ogbench_world import OgbenchWorld, SceneWorld
from .closed_loop import Episodes

BUDGET = 50
"""Steps of an episode that count."""
MODERATE, STRICT = 0.04, 0.03
"""Metres from the goal."""
TURNED = 15.0
"""Degrees from the goal."""
HOLD = 3
"""Steps in a row."""


def rotations_of_a_cube() -> np.ndarray:
    """The 24 rotations (24, 3, 3) that carry a cube onto itself: signed permutations of its axes."""
    signed = [
        np.diag(signs) @ np.eye(3)[list(order)]
        for order in permutations(range(3))
        for signs in product((1, -1), repeat=3)
    ]
    return np.stack([matrix for matrix in signed if np.linalg.det(matrix) > 0])


SYMMETRY = rotations_of_a_cube()


def cube_angle(rotation: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Degrees (…) between a cube's rotations (…, 3, 3) and its goal's, by the one of 24 that looks the same and is
    nearest."""
    relative = np.swapaxes(rotation, -1, -2) @ goal
    trace = np.einsum("sij,...ij->...s", SYMMETRY, relative).max(-1)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def moderate(distance: np.ndarray) -> np.ndarray:
    """(B,) of metres from the goal (B, T) after each step: whether it was reached."""
    return np.any(distance[:, :BUDGET] <= MODERATE, axis=1)


def strict(distance: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(B,) of metres and degrees from the goal (B, T) after each step: whether both held, three steps in a row."""
    there = (distance[:, :BUDGET] <= STRICT) & (angle[:, :BUDGET] <= TURNED)
    if there.shape[1] < HOLD:
        return np.zeros(len(there), bool)
    held = np.all(np.lib.stride_tricks.sliding_window_view(there, HOLD, axis=1), axis=-1)
    return np.any(held, axis=1)


def clear_outcomes(env: World, episodes: Episodes) -> dict[str, list[bool]]:
    """`clear_moderate` and `clear_strict` of each episode, of cubes all; empty for worlds whose goal is not cubes alone
    or whose cubes' rotations are not known."""
    if not isinstance(env, OgbenchWorld) or isinstance(env, SceneWorld):
        return {}
    distances, angles = [], []
    for states, goal in zip(episodes.states, episodes.manifest.goal, strict=True):
        env.load_state(goal)
        where, turned = env.cube_poses()
        distances.append([])
        angles.append([])
        for state in states[1 : BUDGET + 1]:
            env.load_state(state)
            positions, rotations = env.cube_poses()
            distances[-1].append(np.linalg.norm(positions - where, axis=-1).max())
            angles[-1].append(cube_angle(rotations, turned).max())
    distance, angle = np.array(distances), np.array(angles)
    return {"clear_moderate": moderate(distance).tolist(), "clear_strict": strict(distance, angle).tolist()}
