"""Recordings, goals and checkpoints know which world they are of, and say so when they meet another."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from conftest import TINY, run, settings_of
from forearm.cli import main
from forearm.envs import WORLDS, GymnasiumWorld, identity, make, make_world, observation_shapes, register, registry
from forearm.envs.identity import fingerprint, fingerprint_as_made, model_arrays, source_packages
from forearm.episodes import DataError, Dataset, Recordings, RecordRequest, check, record, store
from forearm.episodes.facts import WorldFacts
from forearm.episodes.store import episode_name, read_columns, read_header, write_episode
from forearm.errors import UserError
from forearm.evaluation.goals import GoalError, GoalManifest, find_goals, make_goals
from forearm.evaluation.models import fits_world, load_model
from forearm.models.checkpoint import Checkpoint, CheckpointError
from forearm.training.run import stages
from forearm.training.worlds import tracked_columns

REQUEST = RecordRequest("reach", seed=1, episodes=4, length=6, policy="random", config={"pixels": False})


# Fingerprints


@pytest.mark.parametrize("name", registry.world_names())
def test_a_world_made_twice_is_the_same_world(name: str) -> None:
    if name.startswith("ogbench/"):
        pytest.importorskip("ogbench")
    first, second = (make_world(name, pixels=False) for _ in range(2))
    second.reset(seed=5)  # may change the model, but not what was made
    facts = WorldFacts.of(first)
    assert facts == WorldFacts.of(second)
    assert len(facts.model or "") == 64 and f"mujoco {mujoco.__version__}" in (facts.compiler or "")
    assert facts.tracked == (first.tracked.start, first.tracked.stop) and facts.tolerance == first.tolerance
    assert facts.seconds == pytest.approx(1 / first.metadata["render_fps"])
    assert facts.action_low == (-1.0,) * 5 and facts.action_high == (1.0,) * 5
    assert WorldFacts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    assert {"forearm", "gymnasium"} <= facts.packages.keys()
    assert ("ogbench" in name) == ({"ogbench", "dm_control"} <= facts.packages.keys())
    for world in (first, second):
        world.close()


def test_another_process_with_other_threads_makes_the_same_fingerprint() -> None:
    code = "from forearm.envs import make_world, identity; "
    code += "print(identity.fingerprint_as_made(make_world('push', pixels=False)))"
    environment = {**os.environ, "OMP_NUM_THREADS": "3"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == fingerprint(make("push", pixels=False).model)


def test_where_assets_lie_is_no_part_of_a_model(tmp_path: Path) -> None:
    tetrahedron = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    scene = """<mujoco><asset><mesh name="a" file="a.obj"/><mesh name="b" file="b.obj"/></asset><worldbody>
        <geom type="mesh" mesh="a"/><geom type="mesh" mesh="b"/></worldbody></mujoco>"""
    models = []
    for folder in (tmp_path / "here", tmp_path / "some" / "where" / "else"):
        folder.mkdir(parents=True)
        for name in ("a.obj", "b.obj"):
            (folder / name).write_text(tetrahedron)
        (folder / "scene.xml").write_text(scene)
        models.append(mujoco.MjModel.from_xml_path(str(folder / "scene.xml")))
    assert models[0].paths != models[1].paths
    assert fingerprint(models[0]) == fingerprint(models[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.actuator_gear.__setitem__((0, 0), 7.0),
        lambda model: model.opt.gravity.__setitem__(2, -1.6),
        lambda model: setattr(model.opt, "timestep", 0.001),
        lambda model: setattr(model.opt, "disableflags", 1 << 3),
        lambda model: model.geom_rgba.__setitem__((0, 0), 0.123),
        lambda model: model.vis.headlight.ambient.__setitem__(0, 0.9),
        lambda model: setattr(model.stat, "extent", 17.0),
    ],
)
def test_any_change_of_a_model_is_another_fingerprint(change: Callable[[mujoco.MjModel], None]) -> None:
    model = make("push", pixels=False).model
    before, arrays = fingerprint(model), model_arrays(model)
    change(model)
    assert fingerprint(model) != before
    changed = {name for name, array in model_arrays(model).items() if not np.array_equal(array, arrays[name])}
    assert len(changed) == 1


def test_what_a_factory_changes_counts_and_what_a_reset_changes_does_not(names: None) -> None:
    def light(pixels: bool = False, size: int = 64) -> Any:
        env = make("reach", pixels=False)
        env.model.opt.gravity[2] = -1.6
        env.name = "light"
        return env

    register("light", light)
    made: Any = make_world("light")
    usual = make_world("reach", pixels=False)
    assert WorldFacts.of(made).same_model(WorldFacts.of(usual)) is False
    as_made = fingerprint_as_made(made)
    made.model.opt.gravity[2] = -3.0  # as a reset may
    assert fingerprint_as_made(made) == as_made != fingerprint(made.model)


def test_a_world_without_a_model_tells_what_it_can() -> None:
    class Bare:
        __hash__ = None  # pyright: ignore[reportAssignmentType]
        tolerance = 0.5

    facts = WorldFacts.of(Bare())
    assert facts.to_json() == {"tolerance": 0.5}
    assert facts.same_model(facts) is None and not facts.differences(replace(facts, model="a", compiler="b"))


def test_models_of_two_compilers_are_not_compared() -> None:
    one = WorldFacts(model="a" * 64, compiler="mujoco 4.0.0 x86_64", tracked=(0, 3))
    other = replace(one, model="b" * 64, compiler="mujoco 4.0.0 arm64")
    assert one.same_model(other) is None and not one.differences(other)
    assert "cannot be compared (model aaaaaaaaaaaa then and bbbbbbbbbbbb now, compiler" in one.seen_from(other)
    assert one.seen_from(one) == "this world" and "not recorded" in WorldFacts().seen_from(one)
    assert one.differences(replace(one, model="c" * 64, tracked=(0, 6))) == {
        "model": ("a" * 12, "c" * 12),
        "tracked": ((0, 3), (0, 6)),
    }


def test_packages_are_those_that_define_a_world() -> None:
    assert source_packages(object(), Path()) == {}
    assert source_packages(gymnasium.Env()).keys() == {"gymnasium"}


# Recordings


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    record(REQUEST, folder)
    return content(folder)


@pytest.fixture
def begun(whole: dict[str, bytes], tmp_path: Path) -> Path:
    """A recording that was broken off."""
    for name, data in whole.items():
        if name not in ("manifest.json", episode_name(1), episode_name(3)):
            (tmp_path / name).write_bytes(data)
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def made(name: str, change: Callable[[Any], None] = lambda env: None, **config: Any) -> Any:
    env = make(name, **config)
    change(env)
    return env


def weaker(env: Any) -> None:
    env.model.actuator_gainprm[:, 0] *= 0.5


def test_a_recording_tells_of_its_world_and_each_episode_does(whole: dict[str, bytes], begun: Path) -> None:
    facts = WorldFacts.of(make("reach", pixels=False))
    for name in ("recording.json", "manifest.json"):
        told = json.loads(whole[name])
        assert told["renderer"] == "none" and WorldFacts.from_json(told["world"]) == facts
    assert read_header(begun / episode_name(0)).origin.world == facts
    record(REQUEST, begun)
    assert content(begun) == whole


def test_another_model_does_not_finish_a_recording(begun: Path, whole: dict[str, bytes]) -> None:
    before = content(begun)
    with pytest.raises(DataError, match=r"was begun in a world with model \w{12}, which is \w{12} now"):
        record(REQUEST, begun, make_env=partial(made, change=weaker))
    assert content(begun) == before
    record(REQUEST, begun)
    assert content(begun) == whole


def test_other_facts_of_a_world_do_not_either(begun: Path) -> None:
    def widen(env: Any) -> None:
        env.task = replace(env.task, tolerance=0.5)

    with pytest.raises(DataError, match=r"a world with tolerance 0\.\d+, which is 0\.5 now"):
        record(REQUEST, begun, make_env=partial(made, change=widen))


def test_what_acts_otherwise_in_the_same_model_is_noticed(begun: Path) -> None:
    def slow(env: Any) -> None:
        apply = env.arm.apply
        env.arm.apply = lambda data, action: apply(data, 0.5 * action)

    before = content(begun)
    message = rf"{episode_name(0)}: made again, it is another episode \(proprio, sim, state differ\)"
    with pytest.raises(DataError, match=message):
        record(REQUEST, begun, make_env=partial(made, change=slow))
    assert content(begun) == before


def test_another_version_of_what_a_world_comes_from_is_named(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = source_packages(make("reach", pixels=False))
    monkeypatch.setattr(identity, "source_packages", lambda *_: {**found, "gymnasium": "0.1"})
    with pytest.raises(DataError, match=rf"was begun with gymnasium {found['gymnasium']}, installed is 0\.1"):
        record(REQUEST, begun)


class Drawn:
    """A world of numbers that is drawn by a renderer of some name."""

    def __init__(self, name: str, renderer: str) -> None:
        self.name, self.config, self.renderer_name = name, {}, renderer

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.state = np.array([float(seed or 0)])
        return self._seen(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.state = self.state + action
        return self._seen(), 0.0, False, False, {}

    def _seen(self) -> dict[str, np.ndarray]:
        return {"state": self.state.astype(np.float32), "pixels": np.zeros((2, 2, 3), np.uint8)}

    def save_state(self) -> np.ndarray:
        return self.state

    def close(self) -> None: ...


def drawn(renderer: str, folder: Path) -> None:
    def policy(name: str, env: Any, rng: np.random.Generator) -> Any:
        return SimpleNamespace(reset=lambda: None, act=lambda: rng.uniform(-1, 1, 1))

    request = RecordRequest("drawn", episodes=3, length=4)
    record(request, folder, make_env=lambda name: Drawn(name, renderer), make_policy=policy)


@pytest.mark.parametrize("told", [True, False])
def test_another_renderer_is_noticed_before_anything_is_recorded(tmp_path: Path, told: bool) -> None:
    drawn("mujoco 4.0.0 egl", tmp_path)
    if not told:  # as Forearm 0.1 began a recording
        value = json.loads((tmp_path / "recording.json").read_text())
        (tmp_path / "recording.json").write_text(json.dumps({k: v for k, v in value.items() if k != "renderer"}))
    for lost in ("manifest.json", episode_name(2)):
        (tmp_path / lost).unlink()
    before = content(tmp_path)
    with pytest.raises(DataError, match=r"mujoco 4\.0\.0 egl, and here it is mujoco 4\.0\.0 osmesa.* MUJOCO_GL=egl "):
        drawn("mujoco 4.0.0 osmesa", tmp_path)
    with pytest.raises(DataError, match=r"here it is mujoco_warp 4 cpu, whose pixels differ\. Go back to that"):
        drawn("mujoco_warp 4 cpu", tmp_path)
    assert content(tmp_path) == before
    drawn("mujoco 4.0.0 EGL", tmp_path)  # MuJoCo reads the name in any case
    assert check(tmp_path).ok


def untell(folder: Path) -> None:
    """Makes a recording what Forearm 0.1 wrote: it tells nothing of its world."""
    for path in folder.glob("*.safetensors"):
        header = read_header(path)
        columns = read_columns(path, header.columns)
        write_episode(folder, replace(header.origin, world=WorldFacts()), columns)
    for path in folder.glob("*.json"):
        told = json.loads(path.read_text())
        gone = ("world", "renderer") if path.name == "recording.json" else ("world",)
        path.write_text(json.dumps({key: value for key, value in told.items() if key not in gone}))


def test_recordings_that_do_not_tell_are_opened_and_finished_as_before(begun: Path, tmp_path: Path) -> None:
    untell(begun)
    record(REQUEST, begun)
    data = Recordings.open([begun])
    assert check(begun).ok and data.worlds == {"reach": WorldFacts()} and "worlds" not in data.about
    assert tracked_columns(data) == {"reach": make("reach", pixels=False).tracked}
    headers = [read_header(path).origin.world for path in begun.glob("*.safetensors")]
    assert headers == [WorldFacts()] * 4, "the episodes of one set tell the same"


def test_two_worlds_of_one_name_are_not_learned_from_as_one(tmp_path: Path) -> None:
    record(REQUEST, tmp_path / "a")
    record(replace(REQUEST, seed=2), tmp_path / "b", make_env=partial(made, change=weaker))
    with pytest.raises(DataError, match=rf"data={tmp_path / 'b'}: its model is \w+, that of {tmp_path / 'a'} \w+"):
        Recordings.open([tmp_path / "a", tmp_path / "b"])
    assert Recordings.open([tmp_path / "b"]).about["worlds"].keys() == {"reach"}


# Content


def flip_a_mantissa_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8 : 8 + size])["state"]["data_offsets"]
    for byte in range(8 + size + first, 8 + size + last, 4):
        data[byte + 1] ^= 1
    path.write_bytes(data)


def test_content_that_changed_is_not_learned_from(begun: Path) -> None:
    record(REQUEST, begun)
    flip_a_mantissa_bit(begun / episode_name(2))
    data = Dataset.open(begun)
    split = next(name for name, rows in data.manifest.split.items() if 2 in rows)
    for columns in (["state"], ["action"]):
        with pytest.raises(DataError, match=rf"{episode_name(2)}: checksum mismatch.*forearm data check"):
            data.load(split, columns)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [("state", np.nan, "'state' is NaN or infinite in 1 rows"), ("action", 1.5, r"'action' reaches 1\.5, outside")],
)
def test_values_that_cannot_be_are_not_learned_from(begun: Path, column: str, value: float, message: str) -> None:
    path = begun / episode_name(0)
    columns = read_columns(path, read_header(path).columns)
    columns[column][1, 0] = value
    write_episode(begun, read_header(path).origin, columns)
    for index in (1, 2, 3):  # a set whose first episode, whoever wrote it, has a checksum of its own
        header = read_header(begun / episode_name(2))
        write_episode(begun, replace(header.origin, index=index), read_columns(begun / episode_name(2), header.columns))
    store_manifest(begun)
    data = Dataset.open(begun)
    with pytest.raises(DataError, match=message):
        data.load(next(name for name, rows in data.manifest.split.items() if 0 in rows), ["sim"])


def store_manifest(folder: Path) -> None:
    from forearm.episodes import Manifest

    Manifest.of(folder, REQUEST).write(folder)


def test_content_is_verified_once_a_file(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(REQUEST, begun)
    data, seen = Recordings.open([begun]), []
    monkeypatch.setattr(store, "checksum", lambda columns, of=store.checksum: seen.append(len(columns)) or of(columns))
    for _ in range(3):
        for split in ("train", "val"):
            data.load(split, ["state"])
    assert seen == [4] * 4, "every column of every episode, once"


def test_a_clock_that_does_not_rise_is_found(begun: Path) -> None:
    path = begun / episode_name(2)
    columns = read_columns(path, read_header(path).columns)
    columns["sim"][3:, 0] -= columns["sim"][3, 0]
    write_episode(begun, read_header(path).origin, columns)
    found = [problem.what for problem in check(begun).problems if problem.file == episode_name(2)]
    assert found == ["time does not rise in 1 of 6 steps, first in step 2: the simulation was reset"]


def test_a_state_that_is_no_clock_may_fall(tmp_path: Path) -> None:
    drawn("none", tmp_path)
    falls = [np.diff(read_columns(path, ["sim"])["sim"][:, 0]) < 0 for path in tmp_path.glob("*.safetensors")]
    assert np.concatenate(falls).any() and check(tmp_path).ok


# Training


def reacher(pixels: bool = False, size: int = 64, name: str = "mine", points: int = 1, numbers: int = 4) -> Any:
    def tracked(data: Any) -> np.ndarray:
        return np.stack([data.body("fingertip").xpos, data.body("body1").xpos])[:points]

    def observe(env: Any) -> np.ndarray:
        return np.concatenate([env.data.qpos[:2], env.data.qvel[:2], np.ones(8)])[:numbers]

    env = gymnasium.make("Reacher-v5")
    return GymnasiumWorld(
        name, env, points=tracked, tolerance=0.03, budget=20, observe=observe, pixels=pixels, size=size
    )


TRAIN = ("obs=state", "steps=2", "horizon=2", *TINY)


def test_training_needs_no_environment(names: None, tmp_path: Path) -> None:
    register("mine", reacher)
    run("record env=mine obs=state episodes=4 length=10 workers=1 policy=random", f"out={tmp_path / 'data'}")
    WORLDS.parts["mine"] = partial(reacher, points=2)
    data = Recordings.open([tmp_path / "data"])
    assert tracked_columns(data) == {"mine": slice(0, 3)}
    del WORLDS.parts["mine"]
    run("train", f"data={tmp_path / 'data'}", f"out={tmp_path / 'train'}", *TRAIN)
    checkpoint = Checkpoint.load(tmp_path / "train" / "checkpoint")
    assert checkpoint.model.architecture.readout == 3 and checkpoint.world("mine").tracked == (0, 3)
    assert checkpoint.world("reach") == WorldFacts()

    untell(tmp_path / "data")
    data = Recordings.open([tmp_path / "data"])
    with pytest.raises(UserError, match=r"does not tell which columns of `state` are tracked.*: env=mine is unknown"):
        tracked_columns(data)
    register("mine", partial(reacher, points=2))
    with pytest.raises(UserError, match=r"its state \(7,\) is not that of env=mine, \(10,\)"):
        tracked_columns(data)
    WORLDS.parts["mine"] = reacher
    assert tracked_columns(data) == {"mine": slice(0, 3)}


def test_a_prior_that_is_not_asked_for_asks_nothing() -> None:
    settings = settings_of("train", ["model.chunk=5"])
    assert settings.prior.segment % 5 and stages(settings) == []
    with pytest.raises(UserError, match=r"must be a multiple of model\.chunk=5"):
        settings_of("train", ["model.chunk=5", "prior.steps=10"])


# Checkpoints and goals meet an environment


def misfit(state_run: Path, folder: Path) -> Path:
    """A checkpoint for env=mine that was trained on the state of another."""
    checkpoint = Checkpoint.load(state_run / "train" / "checkpoint")
    return replace(checkpoint, env="mine").save(folder)


@pytest.mark.parametrize(
    "command", ["bench planners=[cem] episodes=2", "demo episodes=2", "record policy=planner episodes=2 workers=1"]
)
def test_a_checkpoint_of_another_shape_is_refused_before_anything_is_written(
    command: str, state_run: Path, names: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register("mine", reacher)
    folder, out = misfit(state_run, tmp_path / "checkpoint"), tmp_path / "out"
    capsys.readouterr()
    assert main([*command.split(), "env=mine", "obs=state", f"checkpoint={folder}", f"out={out}"]) == 2
    told = r"was trained on state (17,), env=mine gives (7,)"
    assert capsys.readouterr().err == f"forearm: checkpoint={folder}: {told}\n"
    assert not out.exists()


def test_a_world_model_of_another_shape_is_no_world_for_a_recording(
    state_run: Path, names: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register("mine", reacher)
    run("record env=mine obs=state episodes=4 length=10 workers=1 policy=random", f"out={tmp_path / 'data'}")
    folder = misfit(state_run, tmp_path / "checkpoint")
    settings = [f"data={tmp_path / 'data'}", f"frozen={folder}", "readout.steps=2", f"out={tmp_path / 'out'}", *TRAIN]
    assert main(["train", *settings, "model.chunk=2"]) == 2
    assert f"forearm: frozen={folder}: was trained on state (17,), data=" in capsys.readouterr().err


def test_what_a_checkpoint_takes_is_named(state_run: Path) -> None:
    checkpoint = Checkpoint.load(state_run / "train" / "checkpoint")
    env = make("push", pixels=False)
    fits = observation_shapes(env) | {"action": (5,)}
    checkpoint.require_shapes("env=push", fits, tracked=3)
    with pytest.raises(CheckpointError, match=r"was trained on action \(5,\), env=push gives \(6,\)"):
        checkpoint.require_shapes("env=push", fits | {"action": (6,)})
    with pytest.raises(CheckpointError, match=r"was trained on state \(17,\), env=push gives None"):
        checkpoint.require_shapes("env=push", {"action": (5,)})
    with pytest.raises(CheckpointError, match="reads positions of 1 tracked points, env=push has 2"):
        checkpoint.require_shapes("env=push", fits, tracked=6)


def test_a_checkpoint_and_goals_of_another_model_are_told(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = state_run / "train" / "checkpoint"
    settings = [
        "env=push",
        "obs=state",
        "planners=[zero]",
        "episodes=1",
        "video_episodes=0",
        f"checkpoint={checkpoint}",
    ]
    assert main(["bench", *settings, "threads=1", f"out={tmp_path}"]) == 0
    facts = json.loads((tmp_path / "results.json").read_text())["facts"]
    assert facts["trained in"] == facts["goals of"] == "this world" and "gymnasium" in facts["world"]
    assert "note:" not in capsys.readouterr().err

    other = made("push", weaker, pixels=False)
    loaded = load_model(settings_of("bench", settings), str(checkpoint), torch.device("cpu"))
    fits_world(loaded, str(checkpoint), other)
    told = capsys.readouterr().err
    assert told.startswith(f"note: checkpoint={checkpoint}: was trained in another world of this name (model ")
    for goals in (tmp_path / "goals.safetensors", state_run / "data"):
        scene = settings_of("bench", [*settings, f"goals={goals}", "ahead=5"])
        assert len(find_goals(scene, make("push", pixels=False))) == 1
        with pytest.raises(GoalError, match=f"goals={goals}: .* in another world of this name .model "):
            find_goals(scene, other)


def test_the_hash_of_goals_is_what_it_was(tmp_path: Path) -> None:
    env = make("reach", pixels=False)
    goals = make_goals(env, 2, seed=0)
    assert goals.world == WorldFacts.of(env)
    untold = replace(goals, world=WorldFacts())
    assert untold.sha256 == goals.sha256 and "world" not in goals.header
    for manifest in (goals, untold):
        manifest.save(tmp_path / "goals.safetensors")
        read = GoalManifest.load(tmp_path / "goals.safetensors")
        assert read.world == manifest.world and read.sha256 == goals.sha256
        assert read.first(1).world == manifest.world
        read.require(env, "here")
    weaker(other := make("reach", pixels=False))
    untold.require(other, "here")
    with pytest.raises(GoalError, match="goals=here: were made in another world of this name"):
        goals.require(other, "here")
    with pytest.raises(GoalError, match="goals=here: were made for env=reach, not for this env=push"):
        goals.require(make("push", pixels=False), "here")


# What is no recording


def hold(folder: Path, name: str, text: str = "{}") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (
            {"meta/info.json": '{"codebase_version": "v2.1"}', "data/chunk-000/a.parquet": ""},
            r"a LeRobot set \(v2\.1\)",
        ),
        ({"data/main_data.hdf5": ""}, "a Minari set"),
        ({"demo.hdf5": ""}, "HDF5 files"),
        ({"lift/demo.hdf5": ""}, "HDF5 files"),
        ({"cube.npz": ""}, "NumPy archives"),
        ({".zgroup": ""}, "a Zarr store"),
        ({"checkpoint/config.json": ""}, "a training run"),
    ],
)
def test_what_is_no_recording_is_named(tmp_path: Path, files: dict[str, str], kind: str) -> None:
    for name, text in files.items():
        hold(tmp_path, name, text)
    with pytest.raises(DataError, match=f"{tmp_path}: is no recording of Forearm's but {kind}$"):
        Dataset.open(tmp_path)
    assert not check(tmp_path).ok and "is no recording of Forearm's but" in check(tmp_path).lines()[1]


def test_a_folder_of_anything_else_and_a_file_are_no_recording(tmp_path: Path) -> None:
    hold(tmp_path, "meta/info.json", "[]")
    with pytest.raises(DataError, match=r"is no recording of Forearm's$"):
        Dataset.open(tmp_path)
    for use in (check, Dataset.open):
        with pytest.raises(DataError, match=r"info\.json: is a file; give the folder that `forearm record` wrote"):
            use(tmp_path / "meta" / "info.json")
