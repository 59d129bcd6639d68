"""What several tests share: tiny recordings and checkpoints, made once."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that torch, here and in child processes, takes no other test's core

from forearm.cli import COMMANDS, main
from forearm.commands.overrides import class_of, parse
from forearm.presets import suited

# Where tests run as a shell's background job, SIGINT is ignored, and what they start would ignore it as well.
signal.signal(signal.SIGINT, signal.default_int_handler)

TINY = ("model.latent=8", "model.predictor_width=16", "batch=8", "device=cpu", "threads=1")
"""A model that trains in no time, and learns as little."""

FOREARM = (sys.executable, "-m", "forearm.cli")


def run(command: str, *settings: str) -> None:
    assert main([*command.split(), *settings]) == 0


def settings_of(command: str, words: Sequence[str]) -> Any:
    """The settings that a command makes of what is typed after it."""
    module = COMMANDS[command].load()
    given = parse(words, module.SETTINGS)
    return suited(class_of(module.SETTINGS, given), given)


def trained(*words: str, **fields: Any) -> Any:
    """The model that `forearm.train` learns by words `key=value`, and by fields that only Python has."""
    import forearm

    return forearm.train(**parse(words, COMMANDS["train"].load().SETTINGS), **fields)


def made(factory: pytest.TempPathFactory, obs: str) -> Path:
    """A folder with `data` of Push and `train/checkpoint`."""
    folder = factory.mktemp(obs)
    run("record env=push episodes=6 length=20 workers=1", f"obs={obs}", f"out={folder / 'data'}")
    words = (f"data={folder / 'data'}", f"obs={obs}", f"out={folder / 'train'}", "steps=6", *TINY)
    trained(*words, "validate_every=4", "save_every=3", log_every=2)
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
    from forearm.envs import WORLDS  # here, for it imports MuJoCo, which many a test does without

    before = dict(WORLDS.parts)
    yield
    WORLDS.parts.clear()
    WORLDS.parts.update(before)
