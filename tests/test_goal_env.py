"""Gymnasium's goal convention: what is observed, what is rewarded, and that the names as they were stay so."""

import os
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
from forearm.envs import ArmEnv
from forearm.envs.goal_env import GoalConditioned
from forearm.gymnasium_ids import IDS
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv


def made(name: str, **config: Any) -> GoalConditioned:
    env = gymnasium.make(name, goal_conditioned=True, **config).unwrapped
    assert isinstance(env, GoalConditioned)
    return env


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is -?infinity")
@pytest.mark.parametrize("name", IDS)
def test_gymnasium_accepts_it(name: str) -> None:
    check_env(made(name, pixels=True, render_mode="rgb_array"))


@pytest.mark.parametrize("name", IDS)
def test_the_reward_is_a_function_of_the_goals(name: str) -> None:
    env = made(name)
    env.action_space.seed(0)
    env.reset(seed=0)
    achieved, desired, rewards = [], [], []
    for _ in range(12):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation) and not terminated and not truncated
        assert reward == -info["distance"] and info["is_success"] == info["success"] == (-reward < env.arm.tolerance)
        achieved.append(observation["achieved_goal"])
        desired.append(observation["desired_goal"])
        rewards.append(reward)
    one = env.compute_reward(np.stack(achieved), np.stack(desired), {})
    np.testing.assert_array_equal(one, rewards)
    several = env.compute_reward(np.stack(achieved).reshape(3, 4, -1), np.stack(desired).reshape(3, 4, -1), {})
    np.testing.assert_array_equal(several, np.reshape(rewards, (3, 4)))
    relabelled = env.compute_reward(np.stack(achieved), achieved[0], {})  # as hindsight does
    assert relabelled.shape == (12,) and relabelled[0] == 0 and (relabelled <= 0).all()


@pytest.mark.parametrize("name", IDS)
def test_the_goal_is_where_the_points_are_in_the_goal(name: str) -> None:
    env = made(name)
    observation, info = env.reset(seed=3)
    assert not info["success"] and not info["is_success"]
    env.arm.load_state(env.arm.goal_state())
    np.testing.assert_array_equal(env.arm.tracked_points().ravel(), observation["desired_goal"])
    assert env.compute_reward(env.arm.tracked_points().ravel(), observation["desired_goal"], {}) == 0


def test_a_goal_that_is_held_counts_as_success() -> None:
    env = made("forearm/Reach-v0")
    env.reset(seed=0)
    env.arm.load_state(env.arm.goal_state())
    *_, info = env.step(env.arm.hold_action)
    assert info["success"] and info["is_success"]


def test_reset_repeats_with_its_seed() -> None:
    env, other = made("forearm/Push-v0"), made("forearm/Push-v0")
    first, again = env.reset(seed=5)[0], other.reset(seed=5)[0]
    for part in first:
        np.testing.assert_array_equal(first[part], again[part], err_msg=part)
    assert (env.reset()[0]["desired_goal"] != first["desired_goal"]).any()


def test_it_is_the_same_problem_as_without_the_goal() -> None:
    arm = gymnasium.make("forearm/Push-v0", pixels=False).unwrapped
    assert isinstance(arm, ArmEnv)
    env = made("forearm/Push-v0")
    np.testing.assert_array_equal(env.reset(seed=5)[0]["observation"], arm.reset(seed=5)[0]["state"])
    action = np.linspace(-1, 1, 5)
    observation, reward, *_ = env.step(action)
    state, other, *_ = arm.step(action)
    np.testing.assert_array_equal(observation["observation"], state["state"])
    assert reward == other


def test_what_was_observed_stays_what_it_was() -> None:
    env = made("forearm/Push-v0")
    first, _ = env.reset(seed=5)
    kept = {part: value.copy() for part, value in first.items()}
    first["desired_goal"][:] = 0
    second = env.step(env.arm.hold_action)[0]
    np.testing.assert_array_equal(second["desired_goal"], kept["desired_goal"])
    np.testing.assert_array_equal(first["achieved_goal"], kept["achieved_goal"])


def test_pixels_come_with_those_of_the_goal_where_they_are_asked_for() -> None:
    env = made("forearm/Push-v0", pixels=True, size=32)
    observation, _ = env.reset(seed=0)
    assert observation["pixels"].shape == observation["desired_pixels"].shape == (32, 32, 3)
    np.testing.assert_array_equal(observation["desired_pixels"], env.arm.goal_observation()["pixels"])
    assert (observation["pixels"] != observation["desired_pixels"]).any()
    assert made("forearm/Push-v0").reset(seed=0)[0].keys() == {"observation", "achieved_goal", "desired_goal"}


def test_many_at_once_and_the_limit_of_steps() -> None:
    several = SyncVectorEnv([lambda: gymnasium.make("forearm/Reach-v0", goal_conditioned=True) for _ in range(2)])
    observation, _ = several.reset(seed=0)
    assert observation["achieved_goal"].shape == (2, 3)
    truncated = np.zeros(2, bool)
    for _ in range(30):
        observation, reward, terminated, truncated, _ = several.step(np.zeros((2, 5), np.float32))
        one = several.envs[0].get_wrapper_attr("compute_reward")  # how Stable-Baselines3 comes by it
        np.testing.assert_array_equal(one(observation["achieved_goal"], observation["desired_goal"], {}), reward)
        assert not terminated.any()
    assert truncated.all()
    several.close()


def test_without_pixels_no_opengl_is_needed() -> None:
    code = (
        "import forearm, gymnasium; env = gymnasium.make('forearm/Push-v0', goal_conditioned=True)\n"
        "env.reset(seed=0); print(env.step(env.action_space.sample())[1] < 0, env.unwrapped.arm.renderer_name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MUJOCO_GL": "disable"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["True", "none"], done.stderr
