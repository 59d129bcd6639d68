"""Record, train and plan in an environment that is not Forearm's: Gymnasium's Reacher, a planar arm of two joints.

Run it with `python examples/own_environment.py FOLDER`, FOLDER being a new one. `reacher` is all that an environment
needs; the rest is Forearm's command line, which any program can call.
"""

import sys
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from forearm.cli import main
from forearm.envs import GymnasiumWorld, check_world, register


def fingertip(data: mujoco.MjData) -> np.ndarray:
    """What is to be brought to where it is in the goal: points (1, 3), metres."""
    return data.body("fingertip").xpos[None]


def observe(env: Any) -> np.ndarray:
    """Joint angles and velocities: Reacher's own observation tells of a target, which is another goal than ours."""
    angles, velocities = env.data.qpos[:2], env.data.qvel[:2]
    return np.concatenate([np.cos(angles), np.sin(angles), velocities])


def place_goal(env: Any, rng: np.random.Generator) -> None:
    """At rest, with joint angles within 2 radians of the start's."""
    env.set_state(env.data.qpos + np.append(rng.uniform(-2, 2, 2), (0, 0)), np.zeros(env.model.nv))


class Play:
    """Torques held for two to ten steps."""

    def __init__(self, env: GymnasiumWorld, rng: np.random.Generator) -> None:
        self.rng = rng

    def reset(self) -> None:
        self.left = 0

    def act(self) -> np.ndarray:
        if not self.left:
            self.torque, self.left = self.rng.uniform(-1, 1, 2), int(self.rng.integers(2, 11))
        self.left -= 1
        return self.torque


def reacher(pixels: bool = False, size: int = 64) -> GymnasiumWorld:
    env: Any = gymnasium.make("Reacher-v5").unwrapped
    env.model.actuator_gear[:, 0] = 20  # a tenth: slow enough for a model that learns for seconds
    return GymnasiumWorld(
        "reacher",
        env,
        points=fingertip,
        tolerance=0.03,  # metres
        budget=50,  # steps
        observe=observe,
        place_goal=place_goal,
        policies={"play": Play},
        pixels=pixels,
        size=size,
    )


register("reacher", reacher)


def run(*words: str) -> None:
    if code := main(words):
        sys.exit(code)


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own_environment")
    check_world(reacher())
    run("record", "env=reacher", "obs=state", "episodes=120", "workers=1", f"out={out / 'data'}")
    small = ("model.predictor_width=128", "threads=1")
    run("train", f"data={out / 'data'}", "obs=state", "steps=600", "batch=96", f"out={out / 'train'}", *small)
    run(
        *("bench", "env=reacher", "obs=state", f"checkpoint={out / 'train' / 'checkpoint'}", f"out={out / 'bench'}"),
        *("planners=[cem,random,zero]", "planner_seeds=[0]", "planner.samples=64", "planner.iterations=3"),
        *("execute_steps=2", "episodes=10", "video_episodes=0", "threads=1"),
    )
