"""What is shipped does what the tables say: on the first goals of the published manifests, no fewer than a floor."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import settings_of
from forearm import models
from forearm.evaluation.closed_loop import run_episodes
from forearm.evaluation.controllers import LatentMPC
from forearm.evaluation.goals import make_goals
from forearm.evaluation.models import load_model

GOALS = 4  # whose rows fill a block of a product
SMALL_BUDGET = ("planner.samples=48", "planner.iterations=3")
"""Of those that sample: tables have 95.5 % and more with it, too."""
SHIPPED: dict[str, tuple[int, tuple[str, ...]]] = {
    "reach-pixels": (3, ("env=reach", "planner.samples=16")),
    "push-pixels": (3, SMALL_BUDGET),
    "push-pixels-small": (3, SMALL_BUDGET),
    "push-state": (3, ("obs=state", *SMALL_BUDGET)),
    "pickplace-state": (3, ("env=pickplace",)),
    "pickplace-pixels+proprio": (3, ("env=pickplace", "obs=pixels+proprio")),
    "drawer-state": (4, ("env=drawer", "obs=state")),
    "drawer-pixels+proprio": (4, ("env=drawer", "obs=pixels+proprio")),
    "stack-state": (2, ("env=stack", "obs=state")),
    "ogbench-cube-single-state": (3, ("env=ogbench/cube-single", "obs=state")),
    "ogbench-cube-single-pixels+proprio": (2, ("env=ogbench/cube-single", "obs=pixels+proprio")),
}
"""By name: how many of the goals are held at least, and the words of the command line."""


def test_every_shipped_checkpoint_has_a_floor() -> None:
    folders = (Path(models.__path__[0]) / "pretrained").iterdir()
    assert {folder.name for folder in folders} == SHIPPED.keys()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_checkpoint_holds_its_goals(name: str) -> None:
    if name.startswith("ogbench") and find_spec("ogbench") is None:
        pytest.skip("OGBench is an extra: pip install 'forearm[ogbench]'")
    if name == "ogbench-cube-single-pixels+proprio" and find_spec("mujoco_warp") is None:
        pytest.skip("its pixels are drawn by an extra: pip install 'forearm[warp]'")
    floor, words = SHIPPED[name]
    settings, device = settings_of("demo", [*words, f"checkpoint={name}"]), torch.device("cpu")
    checkpoint = load_model(settings, settings.checkpoint, device)
    env = settings.env.make(settings.obs)
    controller = LatentMPC(env, checkpoint, settings, device)
    held = run_episodes(env, make_goals(env, GOALS, seed=0), controller, seed=0).success
    env.close()
    assert held.sum() >= floor
