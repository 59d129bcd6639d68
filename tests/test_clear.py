"""CLEAR-LeWM's success predicates: a cube's 24 rotations, first hits, what is held."""

from __future__ import annotations

import numpy as np
import pytest
from forearm.envs import make, make_world
from forearm.evaluation.clear import SYMMETRY, clear_outcomes, cube_angle, moderate, strict
from forearm.evaluation.closed_loop import run_episodes
from forearm.evaluation.controllers import RandomController
from forearm.evaluation.goals import make_goals


def turned(degrees: float, axis: int) -> np.ndarray:
    """A rotation (3, 3) about an axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.roll(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), (axis + 1, axis + 1), (0, 1))


def test_a_cube_has_24_rotations() -> None:
    assert SYMMETRY.shape == (24, 3, 3) and len(np.unique(SYMMETRY.reshape(24, 9), axis=0)) == 24
    np.testing.assert_allclose(SYMMETRY @ SYMMETRY.transpose(0, 2, 1), np.tile(np.eye(3), (24, 1, 1)))
    np.testing.assert_allclose(np.linalg.det(SYMMETRY), 1)
    products = (SYMMETRY[:, None] @ SYMMETRY[None]).reshape(-1, 9)
    assert len(np.unique(np.concatenate([products, SYMMETRY.reshape(24, 9)]), axis=0)) == 24, "a group"


def test_what_looks_the_same_is_not_turned() -> None:
    goal = turned(33, 2) @ turned(20, 0)
    np.testing.assert_allclose(cube_angle(goal @ SYMMETRY, goal), 0, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("degrees", "seen"), [(10, 10), (44, 44), (46, 44), (80, 10), (90, 0), (-100, 10), (180, 0)])
def test_angles_are_to_the_nearest_rotation_that_looks_the_same(axis: int, degrees: float, seen: float) -> None:
    goal = turned(17, 1) @ turned(5, 2)
    for same in SYMMETRY[[0, 5, 23]]:
        assert cube_angle(goal @ turned(degrees, axis) @ same, goal) == pytest.approx(seen, abs=1e-4)


def test_moderate_is_the_first_hit_within_fifty_steps() -> None:
    distance = np.full((4, 60), 0.1)
    distance[0, 49] = 0.04
    distance[1, 50] = 0.0  # too late
    distance[2, 10] = 0.0401
    distance[3, 0] = 0.01
    assert moderate(distance).tolist() == [True, False, False, True]


def test_strict_is_held_three_steps_where_it_should_be_and_turned_as_it_should() -> None:
    distance, angle = np.full((6, 60), 0.1), np.full((6, 60), 0.0)
    distance[0, 47:50] = 0.03
    distance[1, 48:60] = 0.0  # two of the fifty
    distance[2, 10:12] = distance[2, 13:15] = 0.0  # two and two
    distance[3, 10:30] = 0.0
    angle[3] = 15.1
    distance[4, 10:30] = 0.031
    distance[5, 10:30], angle[5] = 0.02, 15.0
    assert strict(distance, angle).tolist() == [True, False, False, False, False, True]
    assert not strict(distance[:, :2] * 0, angle[:, :2]).any()


def test_only_goals_of_cubes_alone_are_judged() -> None:
    reach = make("reach", pixels=False)
    goals = make_goals(reach, 1, seed=3)
    assert clear_outcomes(reach, run_episodes(reach, goals, RandomController(5, 1), seed=0)) == {}


@pytest.mark.filterwarnings("ignore:.*DISPLAY")
def test_predicates_are_read_off_recorded_states() -> None:
    """Episodes of states that are put together by hand: the cube at the goal, turned by a face, and by 30 degrees."""
    pytest.importorskip("ogbench", reason="OGBench is an extra: pip install 'forearm[ogbench]'")
    from dataclasses import replace

    world = make_world("ogbench/cube-single", pixels=False)
    goals = replace(make_goals(world, 3, seed=3), budget=4)
    still = run_episodes(world, goals, RandomController(5, 1), seed=0)
    assert clear_outcomes(world, still) == {"clear_moderate": [False] * 3, "clear_strict": [False] * 3}
    states = still.states.copy()
    for episode, yaw in ((0, 90.0), (1, 30.0)):
        world.load_state(goals.goal[episode])
        joint = world.data.joint("object_joint_0")  # type: ignore[attr-defined]
        half = np.radians(yaw) / 2 + np.arctan2(joint.qpos[6], joint.qpos[3])
        joint.qpos[3:] = np.cos(half), 0, 0, np.sin(half)
        states[episode, 1:] = world.save_state()
    found = clear_outcomes(world, replace(still, states=states))
    assert found == {"clear_moderate": [True, True, False], "clear_strict": [True, False, False]}
