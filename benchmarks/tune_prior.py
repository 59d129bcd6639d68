"""Chooses how the row "prior" acts: `python benchmarks/tune_prior.py [--env ENV --obs OBS] [--seed 7] …`.

A baseline gets the same care as what it stands beside. For each shipped prior this measures success at the end of every
choice of executed steps and temperature on the tuning goals of `--seed`, which no table reports, and prints them with
the best first. What it chose stands in configs/presets.yaml, as `prior_alone.execute_steps` and
`prior_alone.temperature`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from forearm.envs import make_world
from forearm.evaluation.closed_loop import run_episodes
from forearm.evaluation.controllers import PriorController
from forearm.evaluation.goals import make_goals
from forearm.evaluation.results import markdown, percent
from forearm.evaluation.settings import action_space
from forearm.models.checkpoint import Checkpoint

SHIPPED = Path(__file__).parent.parent / "models" / "pretrained"


def choices(
    folder: Path, seed: int, episodes: int, every: Sequence[int], temperatures: Sequence[float]
) -> list[list[str]]:
    """The rows of one prior's table, the best choice first; of equals, the one that is asked more often."""
    checkpoint = Checkpoint.load(folder)
    assert checkpoint.prior is not None
    env = make_world(checkpoint.env, pixels="pixels" in checkpoint.obs, size=checkpoint.env_config.get("size", 64))
    manifest = make_goals(env, episodes, seed)
    space = action_space(checkpoint.action_low, checkpoint.action_high, 1, checkpoint.model.chunk)
    found = []
    for steps, temperature in product(every, temperatures):
        if steps > checkpoint.prior.architecture.segment:
            continue
        alone = PriorController(checkpoint.model, checkpoint.prior, space, "cpu", steps, temperature)
        ran = run_episodes(env, manifest, alone, seed=0)
        found.append((ran.success.mean(), ran.reached.mean(), steps, temperature))
    found.sort(key=lambda row: (-row[0], row[2], row[3]))
    return [[str(steps), f"{t:g}", percent(held), percent(reached)] for held, reached, steps, t in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--env")
    parser.add_argument("--obs")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--steps", type=int, nargs="+", default=(1, 2, 3, 5, 6, 10))
    parser.add_argument("--temperatures", type=float, nargs="+", default=(0.3, 0.6))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for folder in sorted(path.parent for path in SHIPPED.glob("*/prior.safetensors")):
        checkpoint = Checkpoint.load(folder)
        if arguments.env in (None, checkpoint.env) and arguments.obs in (None, checkpoint.obs):
            print(f"\n## {checkpoint.env} from {checkpoint.obs}, {arguments.episodes} goals of seed={arguments.seed}\n")
            header = ["execute_steps", "temperature", "success %", "reached %"]
            found = choices(folder, arguments.seed, arguments.episodes, arguments.steps, arguments.temperatures)
            print(markdown([header, *found], 0), flush=True)


if __name__ == "__main__":
    main()
