"""Does an environment keep what a `World` promises? To be asked once of every new one, like Gymnasium's `check_env`."""

from __future__ import annotations

import warnings
from typing import Any

import mujoco
import numpy as np

from ..errors import UserError
from ..seeds import EVALUATION
from .identity import model_arrays
from .stepping import refuse_sleep
from .world import Observation, World, action_size, make_policy

DTYPES = {"state": np.float32, "proprio": np.float32, "pixels": np.uint8}
LOOKED_AT = ("site_", "geom_rgba", "mat_", "tex", "light_", "cam_")
"""Arrays of a model that touch nothing: where they matter, observations or the next steps tell."""
RESETS = 12
"""After which the model is compared."""
TRIES = 3
"""Episodes in which play may move something, and goals may lie apart from starts."""
PATIENCE, STILL = 200, 50
"""Steps of an episode for which play may move something, and staying must not, at most."""


class WorldWarning(UserWarning):
    """An environment keeps its promises, and will most likely not be what was meant."""


def check_world(env: World, steps: int = 30, seed: int = 0) -> None:
    """Resets, steps, saves and loads, and compares bit for bit.

    Warns where staying moves what is tracked, where play does not, or where goals are starts: `WorldWarning`.

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

    promised = [name for name in (*World.__annotations__, *vars(World)) if not name.startswith("_")]
    lacking = [name for name in promised if not hasattr(env, name)]
    require(not lacking, f"lacks {', '.join(lacking)}; `World` (forearm.envs) says what that is")
    model = getattr(env, "model", None)
    if isinstance(model, mujoco.MjModel):
        refuse_sleep(env.name, model)

    size = action_size(env)
    require(env.budget >= 1 and env.tolerance > 0, "`budget` and `tolerance` must be positive")
    for key in ("hold_action", "neutral"):
        action = np.asarray(getattr(env, key))
        fits = action.shape == (size,) and bool((np.abs(action) <= 1).all())
        require(fits, f"`{key}` must be an action ({size},) in [-1, 1]")
    rate = env.metadata.get("render_fps")
    require(isinstance(rate, int) and rate >= 1, f"`render_fps` must be a whole number, and is {rate}")
    require(env.dt > 0, f"`dt` must be positive, and is {env.dt}")

    observation, _ = env.reset(seed=seed)
    start, goal, arrays = env.save_state(), env.goal_state(), _model_arrays(env)
    require("state" in observation, "an observation must have a part `state`")
    for part, value in observation.items():
        require(part in DTYPES, f"an observation has the parts {', '.join(DTYPES)}, not `{part}`")
        require(bool(np.isfinite(value).all()), f"`{part}` must be finite at the start")
        require(value.dtype == DTYPES[part] and value.size > 0, f"`{part}` must be {DTYPES[part].__name__}, not empty")
        shape = (env.config.get("size"),) * 2 + (3,) if part == "pixels" else (value.size,)
        require(value.shape == shape, f"`{part}` must be of shape {shape}, and is {value.shape}")
    require(env.config.get("pixels") == ("pixels" in observation), "`config` must say whether `pixels` are observed")
    points = env.tracked_points()
    require(points.ndim == 2 and points.shape[1:] == (3,), f"`tracked_points` must be (G, 3), and are {points.shape}")
    tracked = observation["state"][env.tracked]
    require(tracked.size > 0 and tracked.size % 3 == 0, "`tracked` must be columns of `state`, three a point")
    found = points.ravel()[: tracked.size].astype(np.float32)
    require(
        np.allclose(tracked, found, rtol=1e-5, atol=1e-6), "`tracked` must be where the first points are in `state`"
    )

    act("random")
    env.reset(seed=seed)
    again = _same(env.observe(), observation) and np.array_equal(env.save_state(), start)
    require(again and np.array_equal(env.goal_state(), goal), "a reset must be a function of its seed")
    other, drawn = start, dict[str, None]()
    for other_seed in range(seed + 1, seed + 1 + RESETS):  # some are drawn now and then
        env.reset(seed=other_seed)
        other = env.save_state()
        env.load_state(start)
        now = _model_arrays(env)
        drawn |= dict.fromkeys(name for name, array in now.items() if not np.array_equal(array, arrays[name]))
    changes = (
        f"a reset changes the model ({', '.join(drawn)}), and a state that is loaded does not bring it back; have "
        "save_state hold it, and load_state set it"
    )
    require(all(name.startswith(LOOKED_AT) for name in drawn), changes)
    require(not np.array_equal(other, start), "another seed must give another start")
    env.reset(seed=EVALUATION + seed)  # evaluations' seeds are large

    env.load_state(goal)
    env.set_goal(goal)
    require(env.distance() < 1e-9, "a goal must be reached in its own state")
    require(_same(env.goal_observation(), env.observe()), "a goal must look as its state does")
    require(np.array_equal(env.save_state(), goal), "observing a goal must leave the state as it is")

    env.load_state(start)
    looks = "a state that is loaded must look as it did when it was saved"
    require(_same(env.observe(), observation), changes if drawn else looks)
    for name in env.policies:
        env.reset(seed=seed)
        actions = act(name)
        require(actions.shape == (steps, size), f"policy {name} must give actions ({size},)")
        require(bool((np.abs(actions) <= 1).all()), f"policy {name} must give actions in [-1, 1]")
        env.reset(seed=seed)
        require(np.array_equal(act(name), actions), f"policy {name} must be a function of state and generator")

    env.load_state(start)
    actions = np.random.default_rng(seed).uniform(-1, 1, (steps, size))
    middle, first = _proceed(env, actions[: steps // 2])[-1], _proceed(env, actions[steps // 2 :])
    env.reset(seed=seed + 1)
    act("random")
    env.load_state(middle[0])
    second = _proceed(env, actions[steps // 2 :])
    same = all(np.array_equal(a, b) and _same(x, y) for (a, x), (b, y) in zip(first, second, strict=True))
    goes_on = "a state that is loaded must go on as it did: some of the environment's state is not saved"
    require(same, changes if drawn else goes_on)
    for doubt in _doubts(env, seed):
        warnings.warn(f"env={env.name}: {doubt}", WorldWarning, stacklevel=2)


def _doubts(env: World, seed: int) -> list[str]:
    """What makes goals, recordings or plans of an environment worthless, without breaking a promise."""
    steps, still, doubts = min(env.budget, PATIENCE), min(env.budget, STILL), []
    play = "play" if "play" in env.policies else "random"
    farthest, played, stayed, swept = 0.0, 0.0, np.inf, np.inf
    for episode in range(seed, seed + TRIES):
        env.reset(seed=episode)
        farthest = max(farthest, env.distance())
        start, before, bodies = env.save_state(), env.tracked_points(), _bodies(env)
        for _ in range(still):
            env.advance(env.hold_action)
        stayed = min(stayed, _farthest(env.tracked_points(), before))  # what is dropped at a start moves by itself
        swept = min(swept, _farthest(_bodies(env), bodies))
        if played >= env.tolerance:
            continue
        env.load_state(start)
        policy = make_policy(play, env, np.random.default_rng(episode))
        policy.reset()
        for _ in range(steps):
            env.advance(np.array(policy.act()))
            played = max(played, _farthest(env.tracked_points(), before))
            if played >= env.tolerance:
                break
    if played < env.tolerance:
        doubts.append(
            f"in {TRIES} x {steps} steps policy {play} moves the tracked points by {played:.3g} m, less than the "
            "tolerance: a recording of it shows nothing of how they move; give policies={'play': …} that moves them"
        )
    if farthest < env.tolerance:
        doubts.append(
            f"its goals lie within the tolerance of their starts in {TRIES} of {TRIES} resets, and `forearm bench` "
            "will find none; give place_goal=…"
        )
    if stayed >= env.tolerance:
        doubts.append(f"`hold_action` moves the tracked points by {stayed:.3g} m in {still} steps; give hold_action=…")
    elif swept >= env.tolerance and not np.any(env.hold_action):
        doubts.append(
            f"`hold_action`, which is zero, moves the robot by {swept:.3g} m in {still} steps; give hold_action=…"
        )
    return doubts


def _farthest(points: np.ndarray, before: np.ndarray) -> float:
    return float(np.linalg.norm(points - before, axis=-1).max())


def _bodies(env: Any) -> np.ndarray:
    """Where all bodies of a world on MuJoCo are, (·, 3) metres; elsewhere the tracked points."""
    data: Any = getattr(env, "data", env)
    return data.xpos.copy() if isinstance(data, mujoco.MjData) else env.tracked_points()


def _model_arrays(env: Any) -> dict[str, np.ndarray]:
    model = getattr(env, "model", None)
    return model_arrays(model) if isinstance(model, mujoco.MjModel) else {}


def _proceed(env: World, actions: np.ndarray) -> list[tuple[np.ndarray, Observation]]:
    """States and observations after each of the actions (T, A)."""
    after = []
    for action in actions:
        env.advance(action)
        after.append((env.save_state(), {part: value.copy() for part, value in env.observe().items()}))
    return after


def _same(one: Observation, other: Observation) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[part], other[part]) for part in one)
