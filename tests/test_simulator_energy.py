"""The simulator as an energy: the same future, number for number, as an environment that takes the same actions."""

import numpy as np
import pytest
import torch
from forearm.envs import TASKS, ArmEnv, make
from forearm.evaluation.simulator import SimulatorEnergy
from forearm.planner import CEM, ActionSpace

PROBLEMS, CANDIDATES, STEPS = 3, 4, 12


def problems(env: ArmEnv) -> tuple[np.ndarray, np.ndarray]:
    """States (B, F) in the middle of something, where commands and joints have not settled, and goals (B, F)."""
    states, goals = [], []
    for seed in range(PROBLEMS):
        env.reset(seed=seed)
        for _ in range(3 * seed):
            env.advance(np.array([0.7, -0.5, -0.9, 0.3, -1.0]))
        states.append(env.save_state())
        goals.append(env.goal_state())
    return np.stack(states), np.stack(goals)


def toward_what_is_tracked(env: ArmEnv, states: np.ndarray) -> np.ndarray:
    """Actions (B, N, T, 5), noisy and at times extreme; those of scenes with things run into the first."""
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (PROBLEMS, CANDIDATES, STEPS, 5))
    actions[:, 0] = np.sign(actions[:, 0])
    if env.task.bodies:
        for problem, state in enumerate(states):
            env.load_state(state)
            way = env.data.body(env.task.bodies[0]).xpos - env.data.site("tip").xpos
            actions[problem, 1:, :, :3] = 0.5 * actions[problem, 1:, :, :3] + 0.5 * way / np.abs(way).max()
    return actions


@pytest.mark.parametrize("name", TASKS)
def test_distances_are_those_of_an_environment(name: str) -> None:
    env = make(name, pixels=False)
    states, goals = problems(env)
    actions = toward_what_is_tracked(env, states)
    expected, tips, moved = np.empty(actions.shape[:-1]), np.empty(actions.shape[:-1]), 0.0
    for b, n in np.ndindex(PROBLEMS, CANDIDATES):
        env.set_goal(goals[b])
        env.load_state(states[b])
        before = env.points(env.data.xpos, env.data.site_xpos).copy()
        for t, action in enumerate(actions[b, n]):
            env.advance(action)
            expected[b, n, t] = env.distance()
            tips[b, n, t] = np.linalg.norm(env.observe()["state"][:3] - env.goal_observation()["state"][:3])
        moved = max(moved, np.abs(env.points(env.data.xpos, env.data.site_xpos) - before).max())
    assert moved > 0.02, "the candidates should touch what is tracked"
    at_rest = env.save_state()
    for threads in (1, 2):
        energy = SimulatorEnergy(env, states, goals, tip_weight=0.0, threads=threads)
        np.testing.assert_array_equal(energy.simulate(actions), expected)
        drawn = SimulatorEnergy(env, states, goals, tip_weight=0.5, threads=threads).simulate(actions)
        np.testing.assert_allclose(drawn, expected + 0.5 * tips, atol=1e-6)
    np.testing.assert_array_equal(env.save_state(), at_rest)  # the environment itself was not touched


@pytest.mark.parametrize("reduce", ["min", "final", "path"])
def test_reductions_are_over_the_horizon(reduce: str) -> None:
    env = make("reach", pixels=False)
    states, goals = problems(env)
    actions = toward_what_is_tracked(env, states)
    energy = SimulatorEnergy(env, states, goals, reduce=reduce, final_weight=0.1)
    distance = energy.simulate(actions)
    value = {
        "min": distance.min(-1) + 0.1 * distance[..., -1],
        "final": distance[..., -1],
        "path": distance.mean(-1) + 0.1 * distance[..., -1],
    }[reduce]
    result = energy(torch.from_numpy(actions).float())
    assert result.shape == (PROBLEMS, CANDIDATES) and result.dtype == torch.float32
    np.testing.assert_allclose(result, value, atol=1e-5)


def test_a_plan_in_the_simulator_reaches() -> None:
    env = make("reach", pixels=False)
    states, goals = problems(env)
    energy = SimulatorEnergy(env, states, goals)
    low, high = torch.full((5,), -1.0), torch.full((5,), 1.0)
    planner = CEM(space=ActionSpace(low=low, high=high, steps=12, chunk=2), samples=48, iterations=4, elites=0.15)
    plan = planner.plan(energy, planner.init(PROBLEMS, seeds=0))
    for problem, actions in enumerate(plan.actions.numpy()):
        env.set_goal(goals[problem])
        env.load_state(states[problem])
        before = env.distance()
        reached = []
        for action in actions:
            env.advance(action)
            reached.append(env.distance())
        assert min(reached) < 0.35 * before
