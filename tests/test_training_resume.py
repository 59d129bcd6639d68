"""What a training may be gone on with: the same settings, of stages too; more steps; or the weights of another."""

import json
import re
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import forearm
import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, exit_code
from forearm.errors import UserError
from forearm.models.checkpoint import Checkpoint
from forearm.models.settings import ModelSettings
from forearm.training.heads import Recorded
from forearm.training.loop import Trainer, TrainingSettings
from forearm.training.schedule import torch_seed
from forearm.training.settings import ObjectiveSettings
from forearm.training.snapshot import ResumeError, load
from safetensors.torch import load_file

STAGES = (
    *("readout.steps=2", "readout.batch=4", "readout.width=8"),
    *("prior.steps=2", "prior.batch=4", "prior.width=8", "prior.depth=1"),
    *("temporal.steps=2", "temporal.batch=4", "temporal.width=8"),
)
EVERY = ("log_every=2", "validate_every=4", "save_every=3")


def train(data: Path, out: Path, *settings: str) -> int:
    return exit_code(["train", f"data={data}", "obs=state", f"out={out}", *TINY, *settings])


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoint" / "model.safetensors")


@pytest.fixture(scope="module")
def staged(state_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("staged") / "run"
    assert train(state_run / "data", out, "steps=2", *STAGES) == 0
    return out


@pytest.fixture(scope="module")
def on_world(state_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("on_world") / "run"
    assert train(state_run / "data", out, *ON_WORLD, f"frozen={state_run / 'train' / 'checkpoint'}") == 0
    return out


ON_WORLD = ("predictor.steps=2", "predictor.batch=4", "temporal.steps=2", "temporal.batch=4", "temporal.width=8")


# Settings of stages


@pytest.mark.parametrize(
    "change",
    [
        *("prior.steps=3", "prior.width=16", "prior.ahead=9.0", "prior.steps=0", "readout.learning_rate=0.5"),
        *("readout.horizon=2", "temporal.jitter=0.5", "temporal.steps=0", "readout.steps=0"),
    ],
)
def test_another_setting_of_a_stage_is_refused(
    staged: Path, state_run: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(staged)
    assert train(state_run / "data", staged, "steps=2", *STAGES, change, "resume=true") == 2
    key, value = change.split("=")
    refused = f"{key}={value}: this training was begun with {key}="
    if change == "readout.steps=0":  # no width, then
        refused = "readout.width=0: this training was begun with readout.width=8"
    assert refused in capsys.readouterr().err
    assert files(staged) == before


@pytest.mark.parametrize(
    "change",
    [
        *("predictor.steps=3", "predictor.steps=0", "predictor.horizon=2", "temporal.width=16", "temporal.steps=0"),
        *("seed=3", "precision=bf16", "model.predictor_width=32"),
    ],
)
def test_another_setting_of_a_stage_on_a_world_model_is_refused(
    on_world: Path, state_run: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(on_world)
    world = f"frozen={state_run / 'train' / 'checkpoint'}"
    assert train(state_run / "data", on_world, *ON_WORLD, world, change, "resume=true") == 2
    key, value = change.split("=")
    assert f"{key}={value}: this training was begun with {key}=" in capsys.readouterr().err
    assert files(on_world) == before


def test_another_world_model_is_refused(
    on_world: Path, staged: Path, state_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(state_run / "data", on_world, *ON_WORLD, f"frozen={staged / 'checkpoint'}", "resume=true") == 2
    assert "frozen=…: is not what this training was begun with (sha256 " in capsys.readouterr().err
    world = f"frozen={state_run / 'train' / 'checkpoint'}"
    assert train(state_run / "data", staged, "steps=2", *STAGES, world, "resume=true") == 2
    assert "was begun without one" in capsys.readouterr().err


def test_the_same_settings_and_another_stage_are_no_other_training(
    staged: Path, on_world: Path, state_run: Path, tmp_path: Path
) -> None:
    before = files(on_world / "checkpoint")
    world = f"frozen={state_run / 'train' / 'checkpoint'}"
    assert train(state_run / "data", on_world, *ON_WORLD, world, "resume=true") == 0
    assert files(on_world / "checkpoint") == before
    out = shutil.copytree(on_world, tmp_path / "run")
    later = ("readout.steps=0", "prior.steps=2", "prior.batch=4", "prior.width=8", "prior.depth=1")
    assert train(state_run / "data", out, *ON_WORLD, *later, world, "resume=true") == 0
    assert Checkpoint.load(out / "checkpoint").about["stages"].keys() == {"predictor", "temporal", "prior"}


def test_of_a_checkpoint_of_0_1_0_only_steps_are_known(
    staged: Path, state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(staged, tmp_path / "run")
    config = out / "checkpoint" / "config.json"
    told = json.loads(config.read_text())
    del told["about"]["stages"], told["about"]["settings"], told["sha256"]
    config.write_text(json.dumps(told))
    assert train(state_run / "data", out, "steps=2", *STAGES, "prior.steps=3", "resume=true") == 2
    assert "prior.steps=3: this training was begun with prior.steps=2" in capsys.readouterr().err
    assert train(state_run / "data", out, "steps=2", *STAGES, "resume=true") == 0


def test_config_yaml_says_what_the_world_model_is(
    on_world: Path, staged: Path, state_run: Path, tmp_path: Path
) -> None:
    """Not what the command asked for, which on a world model has no effect."""
    out = tmp_path / "run"
    settings = ("steps=9", "model.latent=99", "model.predictor_width=5", "objective.weight=7", "batch=99", "horizon=3")
    world = f"frozen={staged / 'checkpoint'}"
    assert train(state_run / "data", out, *settings, world, "temporal.steps=1", "temporal.batch=4", "seed=4") == 0
    told = yaml.safe_load((out / "config.yaml").read_text())
    of_world = yaml.safe_load((staged / "config.yaml").read_text())
    assert told["model"] == of_world["model"] and told["objective"] == of_world["objective"]
    assert (told["steps"], told["batch"], told["horizon"], told["seed"]) == (2, 8, 4, 4)
    assert told["temporal"]["steps"] == 1


# Longer, or from weights


def test_how_often_is_logged_and_saved_may_change(state_run: Path, tmp_path: Path) -> None:
    out = shutil.copytree(state_run / "train", tmp_path / "run")
    before = weights(out)
    assert (
        train(state_run / "data", out, "steps=6", "log_every=1", "validate_every=2", "save_every=1", "resume=true") == 0
    )
    assert all(torch.equal(value, before[key]) for key, value in weights(out).items())


def test_more_steps_train_longer(state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the rate that the new number of steps gives, and still exactly the same if stopped in between."""
    outs = [Path(shutil.copytree(state_run / "train", tmp_path / name)) for name in ("whole", "stopped")]
    rates: list[float] = []
    every = Trainer.run

    def watched(trainer: Trainer, *arguments: Any) -> Iterator[Any]:
        for validation in every(trainer, *arguments):
            rates.append(trainer.optimizer.param_groups[0]["lr"])
            if trainer.out == outs[1] and trainer.step == 10:
                raise KeyboardInterrupt
            yield validation

    monkeypatch.setattr(Trainer, "run", watched)
    longer = ("steps=12", *EVERY, "resume=true")
    assert train(state_run / "data", outs[0], *longer) == 0
    assert rates == [TrainingSettings(steps=12).rate(step) for step in range(6, 12)]
    assert train(state_run / "data", outs[1], *longer) == 130
    monkeypatch.undo()
    assert train(state_run / "data", outs[1], *longer) == 0
    assert all(torch.equal(value, weights(outs[0])[key]) for key, value in weights(outs[1]).items())
    about = Checkpoint.load(outs[1] / "checkpoint").about
    assert about["steps"] == 12 and about["lengthened"] == [[6, 6]]
    assert about == Checkpoint.load(outs[0] / "checkpoint").about


def test_stages_are_learned_anew_on_a_model_that_trained_longer(staged: Path, state_run: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(staged, tmp_path / "run"))
    assert train(state_run / "data", out, "steps=3", *STAGES, "prior.width=16", "resume=true") == 0
    checkpoint = Checkpoint.load(out / "checkpoint")
    assert checkpoint.prior is not None and checkpoint.prior.architecture.width == 16
    assert (checkpoint.about["steps"], checkpoint.about["stages"]["prior"]["width"]) == (3, 16)


def test_whole_groups_are_compared_with_those_it_was_begun_with(state_run: Path, tmp_path: Path) -> None:
    data, out = state_run / "data", tmp_path / "run"
    model, objective = ModelSettings(latent=8, predictor_width=16), ObjectiveSettings(name="sigreg")
    small: Any = {"data": data, "obs": "state", "out": out, "steps": 2, "batch": 8, "device": "cpu", "threads": 1}
    forearm.train(**small, model=model, objective=objective)
    before = weights(out)
    forearm.train(**small, model=model, objective=objective, resume=True)
    assert all(torch.equal(value, before[key]) for key, value in weights(out).items())
    changes: dict[str, dict[str, Any]] = {
        "model.latent=9: this training was begun with model.latent=8": {"model": replace(model, latent=9)},
        "objective=ema: this training was begun with objective=sigreg": {"objective": ObjectiveSettings(name="ema")},
        "objective.weight=0.3: this training was begun with objective.weight=": {
            "objective": replace(objective, weight=0.3)
        },
    }
    for message, change in changes.items():
        with pytest.raises(UserError, match=re.escape(message)):
            forearm.train(**small, **change, resume=True)


def test_fewer_steps_are_refused(state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shutil.copytree(state_run / "train", tmp_path / "run")
    assert train(state_run / "data", out, "steps=5", *EVERY, "resume=true") == 2
    assert (
        "steps=5: this training was begun with steps=6; keep it to resume, or ask for more" in capsys.readouterr().err
    )


def test_a_training_starts_from_the_weights_of_another(
    state_run: Path, staged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = state_run / "train"
    init = ("steps=1", "learning_rate=1e-9", f"init={first / 'checkpoint'}")
    assert train(state_run / "data", tmp_path / "run", *init) == 0
    held, before = weights(tmp_path / "run"), weights(first)
    for key, value in before.items():
        if not key.startswith(("readout.", "metric")):
            torch.testing.assert_close(held[key], value, rtol=0, atol=1e-7)
    about = Checkpoint.load(tmp_path / "run" / "checkpoint").about
    assert about["steps"] == 1 and about["settings"]["init"] == Checkpoint.load(first / "checkpoint").sha256
    for settings, message in (
        ([*init, "model.latent=9"], "model.latent=9: the checkpoint to start from has model.latent=8"),
        ([*init, "model.members=2"], "model.members=2: the checkpoint to start from has model.members=1"),
        ([*init, f"frozen={first / 'checkpoint'}", "temporal.steps=1"], "leave one out"),
        (["init=nowhere"], "nowhere: no config.json"),
    ):
        assert train(state_run / "data", tmp_path / "no", *settings) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert train(state_run / "data", tmp_path / "run", *init[:2], f"init={staged / 'checkpoint'}", "resume=true") == 2
    assert "init=…: is not what this training was begun with (sha256 " in capsys.readouterr().err


# What is not finite, or damaged


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_training_that_diverges_leaves_its_last_finite_checkpoint(
    state_run: Path, tmp_path: Path, rate: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though nothing looks at the loss before it saves."""
    out = tmp_path / "run"
    settings = ("steps=400", f"learning_rate={rate}", "log_every=400", "save_every=5", "validate_every=400")
    assert train(state_run / "data", out, *settings) == 2
    error = capsys.readouterr().err
    assert f"learning_rate={float(rate)}: the loss diverged by step" in error and "Traceback" not in error
    step = Checkpoint.load(out / "checkpoint").about["steps"]
    assert step < 400 and load(out / "snapshot.safetensors")[1] == step


def test_a_validation_that_diverges_says_so(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("steps=40", "learning_rate=1e30", "log_every=40", "save_every=40", "validate_every=3")
    assert train(state_run / "data", tmp_path / "run", *settings) == 2
    assert "the loss diverged by step" in capsys.readouterr().err


def test_a_stage_that_diverges_is_not_saved(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, world = tmp_path / "run", f"frozen={state_run / 'train' / 'checkpoint'}"
    settings = ("predictor.steps=20", "predictor.batch=4", "predictor.learning_rate=1e30")
    assert train(state_run / "data", out, *settings, world) == 2
    assert "predictor.learning_rate=1e+30: the loss diverged by step 20" in capsys.readouterr().err
    assert "predictor_steps" not in Checkpoint.load(out / "checkpoint").about


def test_a_damaged_snapshot_is_refused(state_run: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(state_run / "train" / "snapshot.safetensors", tmp_path))
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ResumeError, match=r"snapshot\.safetensors: is damaged"):
        load(path)


# Memory and seeds


def test_data_is_not_in_memory_twice_while_stages_are_learned(
    state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[weakref.ref[Any]] = []
    begin, embed, embedded = Trainer.__init__, Recorded.embed, 0

    def watched(trainer: Trainer, *arguments: Any, **options: Any) -> None:
        begin(trainer, *arguments, **options)
        held.extend(weakref.ref(column) for column in trainer.columns.values())

    def looked(*arguments: Any) -> Recorded:
        nonlocal embedded
        assert held and not any(column() is not None for column in held)
        embedded += 1
        return embed(*arguments)

    monkeypatch.setattr(Trainer, "__init__", watched)
    monkeypatch.setattr(Recorded, "embed", looked)
    assert train(state_run / "data", tmp_path / "run", "steps=2", "temporal.steps=1", "temporal.batch=4") == 0
    assert embedded == 1


def test_a_seed_may_be_of_any_size(state_run: Path, tmp_path: Path) -> None:
    settings = ("steps=2", "objective=sigreg", "model.members=2", *STAGES)
    found = []
    for seed in (20261123174500123, 2**80 + 1):
        assert train(state_run / "data", tmp_path / str(seed), *settings, f"seed={seed}") == 0
        found.append(weights(tmp_path / str(seed))["predictor.change.weight"])
    assert not torch.equal(*found)


def test_seeds_that_torch_takes_are_as_they_were() -> None:
    assert [torch_seed(seed) for seed in (0, 7, 2**64 - 1)] == [0, 7, 2**64 - 1]
    assert torch_seed(7, 3) == 7 * 1_000_003 + 3
    large = [torch_seed(2**64 + seed, step) for seed in range(10) for step in range(10)]
    assert len(set(large)) == 100 and all(0 <= seed < 2**64 for seed in large)
    assert isinstance(large[0], int) and not isinstance(large[0], np.integer)
