"""Whether objects were held and dropped, told from simulator states: on episodes that are steered to be one or not."""

from collections.abc import Iterable

import numpy as np
import pytest
from forearm.envs import ArmEnv, make, make_policy
from forearm.envs.tasks import place_holding, place_object
from forearm.evaluation.handling import drops, handled

OPEN, CLOSE, UP, DOWN, HOLD = np.eye(5)[4], -np.eye(5)[4], np.eye(5)[2], -np.eye(5)[2], np.zeros(5)
HALF = 0.02


@pytest.fixture
def env() -> ArmEnv:
    env = make("stack", pixels=False)
    env.reset(seed=0)
    place_object(env.data, "base", np.array([0.55, 0.1, HALF]), yaw=0.0)
    hold(env, HALF)
    return env


def hold(env: ArmEnv, height: float) -> None:
    """The cube between the fingers, its centre at a height in metres."""
    place_object(env.data, "cube", np.array([0.45, -0.05, height]), yaw=0.0)
    place_holding(env.arm, env.data, np.array([0.45, -0.05, height]), 0.0, HALF)
    env.load_state(env.save_state())


def episode(env: ArmEnv, actions: Iterable[np.ndarray]) -> np.ndarray:
    """States (T, F) of what follows."""
    states = [env.save_state()]
    for action in actions:
        env.advance(action)
        states.append(env.save_state())
    return np.stack(states)


def test_a_cube_that_is_carried_and_put_down_is_no_drop(env: ArmEnv) -> None:
    states = episode(env, [HOLD] * 3 + [UP] * 3 + [DOWN] * 3 + [HOLD] * 2 + [OPEN] * 3 + [UP] * 4)
    held = handled(env, states).held
    assert held.shape == (len(states), 2) and not held[:, 1].any(), "the base was never touched"
    assert held[1:12, 0].all() and not held[-5:, 0].any()
    np.testing.assert_array_equal(drops(env, states), [0, 0])


def test_a_cube_that_is_released_in_the_air_is_a_drop(env: ArmEnv) -> None:
    states = episode(env, [HOLD] * 3 + [UP] * 3 + [OPEN] * 8)
    held = handled(env, states).held[:, 0]
    assert held[1:6].all() and not held[-6:].any()
    np.testing.assert_array_equal(drops(env, states), [1, 0])
    np.testing.assert_array_equal(drops(env, states[:7]), [0, 0])  # not yet


def test_a_hand_that_follows_a_falling_cube_down_does_not_hold_it(env: ArmEnv) -> None:
    hold(env, 0.2)
    states = episode(env, [HOLD, OPEN + DOWN, *[OPEN + DOWN] * 5])
    assert not handled(env, states).held[-4:, 0].any()
    np.testing.assert_array_equal(drops(env, states), [1, 0])


def test_a_finger_may_lose_touch_for_a_moment_in_the_air_but_not_on_the_table(env: ArmEnv) -> None:
    for height, expected in ((0.2, True), (HALF, False)):
        hold(env, height)
        both = episode(env, [HOLD])[1]
        env.load_state(both)
        env.data.joint("left_finger").qpos[0] += 0.002
        one = env.save_state()
        np.testing.assert_array_equal(handled(env, np.stack([both, one, one])).held[:, 0], [True, expected, expected])
        assert not handled(env, np.stack([one, one])).held.any()  # nobody has seen it held


def test_what_was_never_lifted_is_not_dropped(env: ArmEnv) -> None:
    pushed = episode(env, [HOLD] * 2 + [np.eye(5)[1]] * 4 + [OPEN] * 3)
    np.testing.assert_array_equal(drops(env, pushed), [0, 0])
    place_object(env.data, "cube", np.array([0.55, 0.1, 0.2]), yaw=0.0)  # falls, but from nobody's hand
    env.load_state(env.save_state())
    np.testing.assert_array_equal(drops(env, episode(env, [HOLD] * 8)), [0, 0])


def test_each_drop_counts_once(env: ArmEnv) -> None:
    one = episode(env, [HOLD] * 3 + [UP] * 3 + [OPEN] * 4)
    hold(env, HALF)
    other = episode(env, [HOLD] * 3 + [UP] * 2 + [OPEN] * 8)
    np.testing.assert_array_equal(drops(env, np.concatenate([one, other])), [2, 0])


@pytest.mark.parametrize("name", ["pickplace", "stack"])
def test_experts_drop_nothing_and_play_does(name: str) -> None:
    env, dropped = make(name, pixels=False), {}
    for policy in ("expert", "play"):
        dropped[policy] = 0
        for seed in range(8):
            env.reset(seed=seed)
            actor = make_policy(policy, env, np.random.default_rng(seed))
            states = [env.save_state()]
            for _ in range(60):
                env.advance(actor.act())
                states.append(env.save_state())
            dropped[policy] += drops(env, np.stack(states))[0]
            assert policy == "play" or handled(env, np.stack(states)).held[:, 0].sum() > 5
    assert dropped["expert"] == 0 and dropped["play"] >= 2


def test_scenes_without_free_objects_have_nothing_to_drop() -> None:
    env = make("drawer", pixels=False)
    env.reset(seed=0)
    states = episode(env, [DOWN] * 3)
    assert handled(env, states).held.shape == (4, 0) and drops(env, states).shape == (0,)
