"""Does an environment keep what a `World` promises? To be asked once of every new one, like Gymnasium's `check_env`."""

from __future__ import annotations

import numpy as np

from ..errors import UserError
from .world import Observation, World, action_size, make_policy


def check_world(env: World, steps: int = 30, seed: int = 0) -> None:
    """Resets, steps, saves and loads, and compares bit for bit.

    Raises:
        UserError: saying which promise is broken.
    """

    def require(kept: bool, promise: str) -> None:
        if not kept:
            raise UserError(f"env={env.name}: {promise}")

    def act(name: str) -> np.ndarray:
        policy = make_policy(name, env, np.random.default_rng(seed))
        policy.reset()
        actions = []
        for _ in range(steps):
            actions.append(np.array(policy.act()))
            env.advance(actions[-1])
        return np.stack(actions)

    observation, _ = env.reset(seed=seed)
    start, goal = env.save_state(), env.goal_state()
    require("state" in observation, "an observation must have a part `state`")
    for part, value in observation.items():
        require(bool(np.isfinite(value).all()), f"`{part}` must be finite at the start")
    require(observation["state"].dtype == np.float32, "`state` must be float32")
    require(observation["state"][env.tracked].size > 0, "`tracked` must be columns of `state`")
    require(env.budget >= 1 and env.tolerance > 0, "`budget` and `tolerance` must be positive")
    fits = env.stay.shape == (action_size(env),) and bool((np.abs(env.stay) <= 1).all())
    require(fits, f"`stay` must be an action ({action_size(env)},) in [-1, 1]")

    act("random")
    env.reset(seed=seed)
    again = _same(env.observe(), observation) and np.array_equal(env.save_state(), start)
    require(again and np.array_equal(env.goal_state(), goal), "a reset must be a function of its seed")
    env.reset(seed=seed + 1)
    require(not np.array_equal(env.save_state(), start), "another seed must give another start")

    env.load_state(goal)
    env.set_goal(goal)
    require(env.distance() < 1e-9, "a goal must be reached in its own state")
    require(_same(env.goal_observation(), env.observe()), "a goal must look as its state does")
    require(np.array_equal(env.save_state(), goal), "observing a goal must leave the state as it is")

    env.load_state(start)
    require(_same(env.observe(), observation), "a state that is loaded must look as it did when it was saved")
    for name in env.policies:
        env.reset(seed=seed)
        actions = act(name)
        require(actions.shape == (steps, action_size(env)), f"policy {name} must give actions ({action_size(env)},)")
        require(bool((np.abs(actions) <= 1).all()), f"policy {name} must give actions in [-1, 1]")
        env.reset(seed=seed)
        require(np.array_equal(act(name), actions), f"policy {name} must be a function of state and generator")

    env.load_state(start)
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, action_size(env)))
    middle, first = _proceed(env, actions[: steps // 2])[-1], _proceed(env, actions[steps // 2 :])
    env.load_state(middle[0])
    second = _proceed(env, actions[steps // 2 :])
    same = all(np.array_equal(a, b) and _same(x, y) for (a, x), (b, y) in zip(first, second, strict=True))
    require(same, "a state that is loaded must go on as it did: some of the environment's state is not saved")


def _proceed(env: World, actions: np.ndarray) -> list[tuple[np.ndarray, Observation]]:
    """States and observations after each of the actions (T, A)."""
    after = []
    for action in actions:
        env.advance(action)
        after.append((env.save_state(), {part: value.copy() for part, value in env.observe().items()}))
    return after


def _same(one: Observation, other: Observation) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[part], other[part]) for part in one)
