"""What several tests share: tiny recordings and checkpoints, made once."""

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # so that torch, here and in child processes, takes no other test's core

from forearm.cli import main
from forearm.commands import COMMANDS
from forearm.commands.overrides import class_of, parse
from forearm.errors import UserError
from forearm.presets import suited
from forearm.settings import keys

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


def exit_code(arguments: Sequence[str]) -> int:
    """That of `forearm train …`; of the same call in Python, where words are of fields that only that has."""
    import forearm
    from forearm.training.settings import TrainSettings

    known = {key.name for key in keys(TrainSettings)}
    words = arguments[1:]
    fields = dict(word.split("=", 1) for word in words if word.split("=")[0] not in known)
    if not fields:
        return main(arguments)
    try:
        given = parse([word for word in words if word.split("=")[0] in known], TrainSettings)
        forearm.train(**given, **{name: json.loads(text) for name, text in fields.items()})
    except UserError as error:
        print(f"forearm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"forearm: stopped; {stopped}", file=sys.stderr)
        return 130
    return 0


def made(factory: pytest.TempPathFactory, obs: str) -> Path:
    """A folder with `data` of Push and `train/checkpoint`."""
    folder = factory.mktemp(obs)
    run("record env=push episodes=6 length=20 workers=1", f"obs={obs}", f"out={folder / 'data'}")
    where = (f"data={folder / 'data'}", f"obs={obs}", f"out={folder / 'train'}")
    assert exit_code(["train", "steps=6", "log_every=2", "validate_every=4", "save_every=3", *where, *TINY]) == 0
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
