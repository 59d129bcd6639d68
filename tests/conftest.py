"""What several tests share: tiny recordings and checkpoints, made once, through the command line."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that torch, here and in child processes, takes no other test's core

from forearm.cli import main

# Where tests run as a shell's background job, SIGINT is ignored, and what they start would ignore it as well.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = (
    *("model.latent=8", "model.features=16", "model.predictor_width=16", "model.encoder_width=8"),
    *("batch=8", "device=cpu", "threads=1"),
)
"""A model that trains in no time, and learns as little."""

FOREARM = (sys.executable, "-m", "forearm.cli")


def run(command: str, *settings: str) -> None:
    assert main([*command.split(), *settings]) == 0


def made(factory: pytest.TempPathFactory, obs: str) -> Path:
    """A folder with `data` of Push and `train/checkpoint`."""
    folder = factory.mktemp(obs)
    run("record env=push episodes=6 length=20 workers=1", f"obs={obs}", f"out={folder / 'data'}")
    train = "train steps=6 log_every=2 validate_every=4 save_every=3"
    run(train, f"data={folder / 'data'}", f"obs={obs}", f"out={folder / 'train'}", *TINY)
    return folder


@pytest.fixture(scope="session")
def state_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory, "state")


@pytest.fixture(scope="session")
def pixel_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory, "pixels")


@pytest.fixture
def names() -> Iterator[None]:
    """Puts the registry of worlds back as it was."""
    from forearm.envs import registry  # here, for it imports MuJoCo, which many a test does without

    before = dict(registry._registered)
    yield
    registry._registered.clear()
    registry._registered.update(before)
