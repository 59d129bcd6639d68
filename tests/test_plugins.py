"""Parts of a user's own, from a file: by name on the command line, in `--help`, in checkpoints, in worker processes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forearm
import pytest
import torch
from forearm import registry
from forearm.cli import main
from forearm.envs import WORLDS, make_world
from forearm.errors import UserError
from forearm.evaluation.results import read_results
from forearm.models.checkpoint import Checkpoint
from forearm.parts import KINDS
from forearm.parts import registry as registry_of
from forearm.planner import CEM
from torch import Tensor, nn

PARTS = Path(__file__).parent.parent / "examples" / "own_parts.py"
NAMES = {
    "planner": "annealed",
    "energy": "near",
    "encoder": "flat",
    "predictor": "affine",
    "world": "mine/push",
    "model": "dead_reckoning",
}
SMALL = ("planner.samples=8", "planner.iterations=2", "planner_seeds=[0]", "video_episodes=0", "threads=1")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has the file's parts known as long as a test runs."""
    before = {kind: dict(registry_of(kind).parts) for kind in KINDS}
    monkeypatch.setenv(registry.PLUGINS, str(PARTS))
    monkeypatch.setattr(registry, "_loaded", set())
    yield
    for kind, held in before.items():
        registry_of(kind).parts.clear()
        registry_of(kind).parts.update(held)


def run(*words: str) -> None:
    assert main(list(words)) == 0


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("kind", NAMES)
def test_each_kind_is_known_by_name_and_told_of(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert NAMES[kind] in registry_of(kind) and NAMES[kind] not in registry_of(kind).own
    run("train" if kind in ("encoder", "predictor") else "bench", "--help=all")
    assert NAMES[kind] in capsys.readouterr().out


@pytest.mark.usefixtures("parts")
def test_settings_of_a_planner_and_an_energy_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    run("bench", "--help=all")
    shown = capsys.readouterr().out
    assert "planner.cooling=0.9" in shown and "energy.radius=0.01" in shown


@pytest.mark.usefixtures("parts")
def test_planner_energy_and_foreign_model_are_benched(tmp_path: Path) -> None:
    words = ("env=reach", "obs=state", "episodes=2", f"out={tmp_path / 'run'}", "planners=[own]", *SMALL)
    run("bench", *words, "checkpoint=dead_reckoning", "planner=annealed", "planner.cooling=0.5", "energy=near")
    results = read_results(tmp_path / "run" / "results.json")
    (row,) = results.rows
    assert (row.planner, row.energy, row.samples, row.evaluations) == ("annealed", "near", 8, 16)
    command = results.more["command"]
    assert "planner=annealed" in command and "planner.cooling=0.5" in command and "energy=near" in command


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["planner=annealed", "planner.cool=1"], "did you mean planner.cooling?"),
        (["planner=annealed", "planner.cooling=warm"], "planner.cooling=warm: must be a number"),
        (["planner.cooling=0.5"], "there is no key 'planner.cooling'"),
        (["energy=near", "energy.distance=l1"], "there is no key 'energy.distance'"),
        (["env=mine/push", "env.sped=1"], "there is no key 'env.sped'"),
        (["checkpoint=dead_recoking"], "dead_recoking"),
    ],
)
def test_mistakes_in_their_settings_are_named(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bench", "obs=state", f"out={tmp_path / 'run'}", *words]) == 2
    assert told in capsys.readouterr().err


def test_recorded_in_workers_trained_loaded_and_benched(tmp_path: Path) -> None:
    """In processes of their own, as a user runs it; without the plug-in, what lacks it says so."""

    def forearm_(*words: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
        own = ["--plugin", str(PARTS)] if plugin else []
        command = [sys.executable, "-m", "forearm", *own, *words]
        environment = {key: value for key, value in os.environ.items() if key != registry.PLUGINS}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    world = ("env=mine/push", "env.speed=0.25", "obs=state", "episodes=4", "length=10", "workers=2", "out=data")
    recorded = forearm_("record", *world)
    assert recorded.returncode == 0 and f"next: forearm --plugin {PARTS} train" in recorded.stdout
    model = ("model.encoder=flat", "model.predictor=affine", "model.latent=8", "steps=4", "batch=8", "threads=1")
    assert forearm_("train", "data=data", "obs=state", *model, "out=run").returncode == 0
    bench = ("bench", "env=mine/push", "obs=state", "checkpoint=run", "planners=[own]", "episodes=1", *SMALL)
    done = forearm_(*bench, "out=bench")
    assert done.returncode == 0, done.stderr
    without = forearm_(*bench, "out=other", plugin=False)
    assert without.returncode == 2 and "env=mine/push is unknown" in without.stderr
    without = forearm_(*bench[:1], "env=push", *bench[2:], "out=other", plugin=False)
    assert without.returncode == 2 and "'affine'" in without.stderr and "residual, transformer" in without.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("parts")
def test_a_world_takes_its_own_settings() -> None:
    assert make_world("mine/push", pixels=False, speed=0.25).config["speed"] == 0.25
    with pytest.raises(UserError, match=r"env\.spd=1.*known: size, speed|env\.spd.*no key"):
        forearm.record({"name": "mine/push", "spd": 1}, episodes=2)


@pytest.mark.usefixtures("parts")
def test_a_registered_planner_is_a_planner() -> None:
    annealed = registry_of("planner")["annealed"]
    slow, fast = annealed(samples=8, cooling=0.9), annealed(samples=8, cooling=0.1)
    assert isinstance(slow, CEM) and slow.cooling == 0.9 and fast.cooling == 0.1  # pyright: ignore[reportAttributeAccessIssue]


def test_a_part_is_registered_once_under_a_word(parts: None) -> None:
    registry.load_plugins()
    for kind, name in NAMES.items():
        with pytest.raises(ValueError, match="is registered already"):
            forearm.register(kind, name)(object)
    with pytest.raises(ValueError, match="must be words"):
        forearm.register("planner", "my planner")(CEM)
    with pytest.raises(UserError, match="kind=planer is unknown; choose one of: world, planner"):
        forearm.register("planer", "mine")


@pytest.mark.parametrize(("text", "told"), [("1/0", "ZeroDivisionError"), ("import no_such_module", "no_such_module")])
def test_a_plugin_that_fails_is_named(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(text)
    command = [sys.executable, "-m", "forearm", "--plugin", "broken.py", "bench", "planner=mine"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and told in done.stderr and "broken.py" in done.stderr
    command[4] = "absent.py"
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "absent.py: there is no such file" in done.stderr


class Foreign(nn.Module):
    """Somebody's own: its embedding is the tip."""

    def encode(self, observation: Mapping[str, Tensor]) -> Tensor:
        return observation["state"][:, :3]

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        return z[:, None, None] + 0.05 * actions[..., :3].cumsum(2)


def test_a_foreign_module_is_evaluated_without_becoming_a_checkpoint() -> None:
    results = forearm.evaluate(
        Foreign(), env="reach", obs="state", planner=CEM(samples=64, iterations=4), episodes=6, progress=False
    )
    held = {row.planner: row.success for row in results.rows}
    assert held["cem"] >= 0.5 > held["zero"] == 0.0
    assert results.success == held["cem"] and results.interval[0] < results.success


@pytest.mark.usefixtures("parts")
def test_a_registered_model_is_evaluated_by_name() -> None:
    found = forearm.evaluate(
        "dead_reckoning", env="reach", obs="state", planner=CEM(samples=8), episodes=1, progress=False
    )
    assert [row.planner for row in found.rows] == ["cem", "random", "zero"] and found.rows[0].error is None


def test_what_is_no_world_model_is_refused() -> None:
    with pytest.raises(UserError, match="Linear: a world model needs the methods encode and rollout"):
        forearm.evaluate(nn.Linear(2, 2), env="reach", obs="state", episodes=1)


def test_entry_points_offer_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Entry:
        name: str = "packaged"

        def load(self) -> Any:
            return CEM

    def entries(group: str, name: str | None = None) -> list[Entry]:
        return [Entry()] if group == "forearm.planners" and name in (None, "packaged") else []

    monkeypatch.setattr(registry, "entry_points", entries)
    planners = registry_of("planner")
    monkeypatch.setattr(planners, "parts", dict(planners.parts))
    assert "packaged" in planners and list(planners)[-1] == "packaged" and planners.is_installed("packaged")
    assert planners["packaged"] is CEM and planners.name_of(CEM) == "cem"
    assert not WORLDS.is_installed("packaged")


def test_checkpoints_name_their_parts(tmp_path: Path, parts: None) -> None:
    data = forearm.record("push", obs="state", episodes=4, length=10, out=tmp_path / "data", progress=False)
    model = forearm.train(
        data, obs="state", steps=2, batch=4, out=tmp_path / "run", model={"encoder": "flat", "predictor": "affine"}
    )
    assert model.folder is not None
    architecture = Checkpoint.load(model.folder).model.architecture
    assert (architecture.encoders, architecture.predictor) == ({"state": "flat"}, "affine")
    z = model.encode({"state": torch.zeros(architecture.observations["state"]).numpy()})
    assert z.shape == (architecture.latent,)


class Crooked(Foreign):
    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        return super().rollout(z, actions)[:, :, -1]


def test_a_foreign_model_of_another_shape_says_so() -> None:
    results = forearm.evaluate(Crooked(), env="reach", obs="state", planner=CEM(samples=8), episodes=2, progress=False)
    assert results.rows[0].error is not None
    assert "Crooked.rollout: must return (2, 8, 6, 3), and gave (2, 8, 3)" in results.rows[0].error


@pytest.mark.parametrize(
    ("kind", "part", "told"),
    [
        ("planner", object, "must be a dataclass that extends forearm.planner.Planner"),
        ("energy", lambda model, z, goal, radius: None, "radius must have a default"),
    ],
)
def test_what_is_no_such_part_is_refused_when_registered(kind: str, part: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        forearm.register(kind, "crooked")(part)
    assert "crooked" not in registry_of(kind)
