"""A checkpoint is saved whole or not at all, and one whose weights are not those that were saved does not load."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from forearm import models
from forearm.models import checkpoint as module
from forearm.models.checkpoint import CONFIG, PRIOR, TEMPORAL, WEIGHTS, Checkpoint, CheckpointError
from forearm.models.prior import ActionPrior, PriorArchitecture
from forearm.models.temporal import TemporalArchitecture, TemporalDistance
from forearm.models.world_model import Architecture, WorldModel
from safetensors.torch import load_file, save_file

PRETRAINED = Path(models.__path__[0]) / "pretrained"


def made(seed: int, prior: bool = False, temporal: bool = False) -> Checkpoint:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes: dict[str, Any] = {
            "predictor_settings": {"width": 8, "depth": 1},
            "encoder_settings": {"state": {"width": 4}},
        }
        model = WorldModel(Architecture({"state": [3]}, {"state": "mlp"}, 2, latent=4, features=4, **sizes))
        return Checkpoint(
            *(model, "push", {}, "state", (-1.0, -1.0), (1.0, 1.0), {"steps": seed}),
            prior=ActionPrior(PriorArchitecture(4, 3, 2, width=8, depth=1)) if prior else None,
            temporal=TemporalDistance(TemporalArchitecture(4, 4, 8)) if temporal else None,
        )


class Killed(BaseException):
    """Stands for a kill: nothing of the save runs after it."""


def save_until(checkpoint: Checkpoint, folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Saves, killed before whatever would change the disk for the time after `steps`; whether it came to its end."""
    done = 0

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal done
            if done == steps:
                raise Killed
            done += 1
            return change(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patched:
        for name in ("write_atomic", "write_json"):
            patched.setattr(module, name, counted(getattr(module, name)))
        # Those two are whole or nothing (tests of files.py) and use `os` of their own.
        patched.setattr(module, "os", type("os", (), {"replace": staticmethod(counted(os.replace))}))
        try:
            checkpoint.save(folder)
        except Killed:
            return False
    return True


def test_a_save_killed_anywhere_leaves_one_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the save before was killed as well, and whatever was learned on top, or is no more."""
    first, second, third = made(1, prior=True), made(2, prior=True, temporal=True), made(3)
    known = {checkpoint.sha256: checkpoint.about["steps"] for checkpoint in (first, second, third)}
    found: set[tuple[int, int]] = set()
    whole = False
    for steps in range(20):
        for more in range(20):
            folder = tmp_path / f"{steps}-{more}"
            first.save(folder)
            whole = save_until(second, folder, steps, monkeypatch)
            between = known[Checkpoint.load(folder).sha256]
            assert between == 2 or not whole
            ended = save_until(third, folder, more, monkeypatch)
            after = known[Checkpoint.load(folder).sha256]
            assert after in (between, 3) and (after == 3 or not ended)
            found.add((between, after))
            third.save(folder)
            assert Checkpoint.load(folder).sha256 == third.sha256
            assert {path.name for path in folder.iterdir()} == {WEIGHTS, CONFIG}, "nothing is left over"
            if ended:
                break
        if whole:
            break
    assert found == {(1, 1), (1, 3), (2, 2), (2, 3)}


def test_weights_of_another_save_are_refused(tmp_path: Path) -> None:
    """Such as a copy that stopped half-way: new weights beside the old config.json."""
    old, new = made(1).save(tmp_path / "old"), made(2).save(tmp_path / "new")
    (old / WEIGHTS).write_bytes((new / WEIGHTS).read_bytes())
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors: cannot be loaded \(its sha256 is not .*config\.json"
    ):
        Checkpoint.load(old)


@pytest.mark.parametrize("name", [WEIGHTS, PRIOR, TEMPORAL])
def test_a_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    folder = made(1, prior=True, temporal=True).save(tmp_path)
    content = bytearray((folder / name).read_bytes())
    content[-5] ^= 1  # the least of a mantissa
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be loaded \(its sha256 is not"):
        Checkpoint.load(folder)


def test_a_checkpoint_of_0_1_0_has_no_hashes_and_loads(tmp_path: Path) -> None:
    folder = made(1, prior=True).save(tmp_path)
    told = json.loads((folder / CONFIG).read_text())
    del told["sha256"]
    (folder / CONFIG).write_text(json.dumps(told))
    assert Checkpoint.load(folder).sha256 == made(1, prior=True).sha256


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_neither_saved_nor_loaded(tmp_path: Path, value: float) -> None:
    good, bad = made(1), made(2)
    folder = good.save(tmp_path)
    bad.model.state_dict()["predictor.change.bias"][1] = value
    with pytest.raises(CheckpointError, match=r"predictor\.change\.bias is not finite; nothing was written"):
        bad.save(folder)
    assert Checkpoint.load(folder).sha256 == good.sha256
    tensors = load_file(folder / WEIGHTS)  # as 0.1.0 would have saved it
    tensors["predictor.change.bias"][1] = value
    save_file(tensors, folder / WEIGHTS)
    told = json.loads((folder / CONFIG).read_text())
    del told["sha256"]
    (folder / CONFIG).write_text(json.dumps(told))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: predictor\.change\.bias is not finite"):
        Checkpoint.load(folder)


def test_hashes_do_not_change_what_identifies_a_checkpoint(tmp_path: Path) -> None:
    checkpoint = made(1, prior=True)
    held = json.loads((checkpoint.save(tmp_path) / CONFIG).read_text())["sha256"]
    assert held == {name: sha256((tmp_path / name).read_bytes()).hexdigest() for name in (WEIGHTS, PRIOR)}
    assert Checkpoint.load(tmp_path).sha256 == checkpoint.sha256
    assert replace(checkpoint, about={"steps": 9}).sha256 != checkpoint.sha256


@pytest.mark.parametrize("folder", sorted(PRETRAINED.iterdir()), ids=lambda folder: folder.name)
def test_shipped_checkpoints_carry_the_hashes_of_their_weights(folder: Path) -> None:
    held = json.loads((folder / CONFIG).read_text())["sha256"]
    assert held == {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}
