"""Rounds: episodes recorded with a planner on the model, and learning from several recordings at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FOREARM, TINY, exit_code, settings_of
from forearm.cli import main
from forearm.envs import make
from forearm.episodes import DataError, Dataset, Recordings, check
from forearm.episodes.store import read_header
from forearm.errors import UserError
from forearm.evaluation.closed_loop import Batch
from forearm.evaluation.goals import HOLD, GoalManifest
from forearm.evaluation.policies import NOISE, PlannerPolicies, PlannerPolicy
from forearm.evaluation.results import pool, read_results
from forearm.models.checkpoint import Checkpoint
from forearm.training.heads import Recorded
from forearm.training.loop import Trainer, read_log
from forearm.training.worlds import tracked_columns
from safetensors.torch import load_file

# The policy, with a controller that is known


class Known:
    """Plans the same four steps whatever it sees, and keeps what it was asked."""

    def __init__(self, action: float = 0.0) -> None:
        self.plan = np.full((1, 4, 5), action)
        self.begun: list[tuple[GoalManifest, Batch, int]] = []
        self.states: list[np.ndarray] = []

    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        self.begun.append((manifest, goals, seed))

    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        assert all(len(part) == 1 for part in observations.values())
        self.states.append(states[0])
        return self.plan


def test_a_share_of_the_steps_is_noisy_and_the_others_are_as_planned() -> None:
    env = make("reach", pixels=False)
    env.reset(seed=0)
    policy = PlannerPolicy(env, Known(action=0.1), np.random.default_rng(0), noise=0.3)
    policy.reset()
    actions = np.stack([policy.act() for _ in range(4000)])
    noisy = (actions != 0.1).any(axis=1)
    assert 0.27 < noisy.mean() < 0.33 and np.abs(actions).max() <= 1
    inside = np.abs(actions[noisy]) < 1
    assert 0.8 * NOISE < (actions[noisy] - 0.1)[inside].std() < NOISE, "the tails of Gaussian noise are clipped"
    for share, expected in ((0.0, 0), (1.0, 50)):
        policy = PlannerPolicy(env, Known(action=0.1), np.random.default_rng(0), noise=share)
        policy.reset()
        assert sum(bool((policy.act() != 0.1).any()) for _ in range(50)) == expected


def test_one_goal_follows_another() -> None:
    env = make("reach", pixels=False)
    env.reset(seed=3)
    own, controller = env.goal_state(), Known()
    policy = PlannerPolicy(env, controller, np.random.default_rng(1), noise=0.0)
    policy.reset()
    lasted, left = [], []
    for _ in range(10):
        count, state = len(controller.begun), env.save_state()
        left.append(policy._left)
        steps = 0
        while len(controller.begun) == count:
            policy.act()  # nothing moves, so that only another goal could change the state
            steps += 1
        lasted.append(steps - 1)
        np.testing.assert_array_equal(env.save_state(), state)
    assert lasted == left and all(env.budget // 2 <= steps <= env.budget for steps in lasted)
    goals = [manifest.goal[0] for manifest, _, _ in controller.begun]
    np.testing.assert_array_equal(goals[0], own)
    np.testing.assert_array_equal(env.goal_state(), goals[-1])
    assert len(np.unique(goals, axis=0)) == 11 == len({seed for _, _, seed in controller.begun})
    for manifest, observed, _ in controller.begun:
        env.set_goal(manifest.goal[0])
        np.testing.assert_array_equal(observed["state"][0], env.goal_observation()["state"])

    # A goal that is reached lasts as long as it must hold, and the plan for it is dropped.
    env.load_state(goals[-1])
    count, plans = len(controller.begun), len(controller.states)
    policy._held = 0
    for _ in range(HOLD - 1):
        policy.act()
    assert len(controller.begun) == count
    policy.act()
    assert len(controller.begun) == count + 1 and len(controller.states) > plans
    assert len(policy._planned) == 3


def test_goals_come_from_seeds_that_no_recording_and_no_evaluation_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make("reach", pixels=False)
    env.reset(seed=3)
    policy = PlannerPolicy(env, Known(), np.random.default_rng(1), noise=0.0)
    policy.reset()
    seeds: list[int] = []
    reset = env.reset

    def seen(*, seed: int) -> object:
        seeds.append(seed)
        return reset(seed=seed)

    monkeypatch.setattr(env, "reset", seen)
    for _ in range(300):
        policy.act()
    assert len(set(seeds)) == len(seeds) >= 8 and min(seeds) >= 2**32


# Recording with it, through the command line

SMALL = ("planner.samples=8", "planner.iterations=1", "planner.horizon=2")


RECORD = ("record", "obs=state", "episodes=6", "length=20", "seed=1")


def planned(checkpoint: Path, out: Path, *settings: str) -> list[str]:
    return [*RECORD, "policy=planner", f"checkpoint={checkpoint}", f"out={out}", *SMALL, *settings]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def checkpoint(state_run: Path) -> Path:
    return state_run / "train" / "checkpoint"


@pytest.fixture(scope="module")
def recorded(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    assert main(planned(checkpoint, folder, "workers=1")) == 0
    return folder


def test_any_number_of_workers_records_the_same_bytes(recorded: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert main(planned(checkpoint, tmp_path, "workers=3")) == 0
    assert content(tmp_path) == content(recorded)


def test_what_is_recorded_is_what_play_records_and_happened(recorded: Path, state_run: Path, checkpoint: Path) -> None:
    assert check(recorded).ok
    data, play = Dataset.open(recorded), Dataset.open(state_run / "data")
    assert data.manifest.columns == play.manifest.columns
    arrays = data.load("train", ["state", "action", "sim"])
    env = make("push", pixels=False)
    for states, actions, sims in zip(arrays["state"], arrays["action"], arrays["sim"], strict=True):
        env.load_state(sims[0])
        for step, action in enumerate(actions):
            np.testing.assert_array_equal(env.observe()["state"], states[step])
            env.advance(action)
            np.testing.assert_array_equal(env.save_state(), sims[step + 1])
    assert len(np.unique(arrays["sim"][:, 0], axis=0)) == 5
    told = data.manifest.request.policy_config
    assert data.manifest.request.policy == "planner" and told["checkpoint"] == Checkpoint.load(checkpoint).sha256
    assert (told["planner.samples"], told["energy.metric"], told["noise"]) == (8, "slow", 0.2)
    assert read_header(recorded / "episode-000002.safetensors").origin.policy_config == told


def test_a_killed_recording_is_finished_as_if_unbroken(recorded: Path, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = [*FOREARM, *planned(checkpoint, out, "workers=2")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(out.glob("episode-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (out / "manifest.json").exists()
    assert main(planned(checkpoint, out, "workers=1")) == 0
    assert content(out) == content(recorded)


def test_another_round_is_refused(
    recorded: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(recorded)
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    config["about"]["steps"] += 1
    (other / "config.json").write_text(json.dumps(config))
    own, changed = (Checkpoint.load(folder).sha256 for folder in (checkpoint, other))
    for arguments, words in (
        (planned(other, recorded), f"was recorded with checkpoint={own}, asked for is checkpoint={changed}; nothing"),
        (planned(checkpoint, recorded, "planner.samples=9"), "planner.samples=8, asked for is planner.samples=9"),
        (planned(checkpoint, recorded, "noise=0.1"), "noise=0.2, asked for is noise=0.1"),
        ([*RECORD, "policy=play", f"out={recorded}"], "policy=planner, asked for is policy=play"),
    ):
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert content(recorded) == before


def test_a_checkpoint_that_changes_meanwhile_is_noticed(checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    settings, env = settings_of("record", planned(folder, tmp_path / "out")[1:]), make("push", pixels=False)
    policies = PlannerPolicies.checked(settings, env)
    loaded = Checkpoint.load(folder)
    with torch.no_grad():
        next(iter(loaded.model.parameters())).add_(1.0)
    loaded.save(folder)
    with pytest.raises(UserError, match=r"checkpoint=.*: has changed since the recording began"):
        policies("planner", env, np.random.default_rng(0))


def test_from_pixels(pixel_run: Path, tmp_path: Path) -> None:
    settings = ("obs=pixels", "episodes=2", "length=5", "workers=1", "execute_steps=1")
    assert main(planned(pixel_run / "train" / "checkpoint", tmp_path, *settings)) == 0
    columns, play = (Dataset.open(folder).manifest.columns for folder in (tmp_path, pixel_run / "data"))
    assert columns.keys() == play.keys() and columns["pixels"].shape == (6, 64, 64, 3)


def test_scripted_policies_need_no_torch(tmp_path: Path) -> None:
    code = "import sys; from forearm.cli import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    record = ["record", "obs=state", "episodes=2", "length=2", "workers=1", f"out={tmp_path}"]
    subprocess.run([sys.executable, "-c", code, *record], check=True, capture_output=True)


# Learning from several recordings


@pytest.fixture(scope="module")
def both(state_run: Path, recorded: Path) -> list[Path]:
    return [state_run / "data", recorded]


def test_recordings_are_read_as_one_and_hold_out_what_each_does(both: list[Path]) -> None:
    data, parts = Recordings.open(both), [Dataset.open(folder) for folder in both]
    for split, episodes in (("train", 10), ("val", 2)):
        arrays = data.load(split, ["state", "action"])
        for name, array in arrays.items():
            assert len(array) == episodes
            np.testing.assert_array_equal(array, np.concatenate([part.load(split, [name])[name] for part in parts]))
    assert (data.envs, data.length, data.frames) == (("push",), 20, 12 * 21)
    assert data.about["policy"] == "play, planner" and data.about["versions"] == parts[0].manifest.versions
    hashes = {Recordings.open(folders).sha256 for folders in (both, both[::-1], both[:1], both[1:])}
    assert len(hashes) == 4 and Recordings.open(both[:1]).sha256 == parts[0].manifest.sha256


def test_recordings_that_do_not_go_together_are_refused(both: list[Path], tmp_path: Path) -> None:
    def recording(name: str, *settings: str) -> Path:
        record = ["record", "obs=state", "env=push", "episodes=4", "length=20", "seed=9", "workers=1"]
        assert main([*record, f"out={tmp_path / name}", *settings]) == 0
        return tmp_path / name

    first = both[0]
    for folder, message in (
        (recording("length", "length=19"), f"data={tmp_path}/length: its length is 19, that of {first} 20"),
        (recording("seed", "seed=0"), f"data={tmp_path}/seed: 4 of its episodes are in {first} too, .* another seed"),
        (first, f"data={first}: 6 of its episodes are in {first} too"),
        (tmp_path / "nowhere", "nowhere: no such folder"),
    ):
        with pytest.raises(DataError, match=message):
            Recordings.open([first, folder])
    small = recording("small", "obs=pixels", "env.size=16")
    large = recording("large", "obs=pixels", "env.size=32", "seed=8")
    with pytest.raises(
        DataError, match=r"its shape of 'pixels' is \(21, 32, 32, 3\), that of .*small \(21, 16, 16, 3\)"
    ):
        Recordings.open([small, large])
    assert Recordings.open([first, small]).columns.keys() == {"state", "proprio", "action", "sim"}


def test_folders_are_taken_as_they_are() -> None:
    for text, folders in {"a b": ["a b"], "[a=b,c(1)]": ["a=b", "c(1)"], "[x]": ["x"], "7": ["7"]}.items():
        assert list(settings_of("train", [f"data={text}"]).data) == folders


def training(data: list[Path], out: Path, *settings: str) -> list[str]:
    short = ("steps=12", "log_every=2", "validate_every=6", "save_every=5")
    folders = ",".join(map(str, data))
    return ["train", f"data=[{folders}]", "obs=state", f"out={out}", *short, *TINY, *settings]


@pytest.fixture(scope="module")
def trained(both: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("union") / "train"
    assert exit_code(training(both, out)) == 0
    return out


def test_training_sees_every_recording(trained: Path, both: list[Path], tmp_path: Path) -> None:
    checkpoint, data = Checkpoint.load(trained / "checkpoint"), Recordings.open(both)
    assert checkpoint.about["data"] == data.sha256 and checkpoint.about["policy"] == "play, planner"
    states = np.concatenate([Dataset.open(folder).load("train", ["state"])["state"] for folder in both])
    encoder: Any = checkpoint.model.encoders["state"]
    np.testing.assert_allclose(encoder.mean, states.reshape(-1, states.shape[-1]).mean(0), atol=1e-5)
    weights = load_file(trained / "checkpoint" / "model.safetensors")
    for name, folders in (("one", both[:1]), ("turned", both[::-1])):
        assert exit_code(training(folders, tmp_path / name)) == 0
        other = load_file(tmp_path / name / "checkpoint" / "model.safetensors")
        assert not torch.equal(weights["predictor.change.weight"], other["predictor.change.weight"])
    z, positions, actions = Recorded.embed(checkpoint.model, data, tracked_columns(data))
    assert len(z) == len(positions) == len(actions) == 10


def test_training_on_several_goes_on_exactly_and_on_nothing_else(
    trained: Path,
    both: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, every = tmp_path / "run", Trainer.run

    def killed(trainer: Trainer, *_: Any) -> Iterator[Any]:
        for validation in every(trainer):
            if trainer.step == 8:
                raise KeyboardInterrupt
            yield validation

    monkeypatch.setattr(Trainer, "run", killed)
    assert exit_code(training(both, out)) == 130
    monkeypatch.undo()
    own = Recordings.open(both).sha256
    for folders in (both[:1], both[::-1]):
        other = Recordings.open(folders).sha256
        assert exit_code([*training(folders, out), "resume=true"]) == 2
        assert (
            f"data=…: is not what this training was begun with (sha256 {other[:12]}, not {own[:12]})"
            in capsys.readouterr().err
        )
    assert exit_code([*training(both, out), "resume=true"]) == 0
    assert read_log(out) == read_log(trained)
    expected, found = (load_file(folder / "checkpoint" / "model.safetensors") for folder in (trained, out))
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


# One model for several tasks


@pytest.fixture(scope="module")
def tasks(pixel_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Recordings of push and of reach."""
    reach = tmp_path_factory.mktemp("reach")
    assert main(["record", "env=reach", "episodes=6", "length=20", "workers=1", f"out={reach}"]) == 0
    return [pixel_run / "data", reach]


def test_one_model_plans_in_several_tasks(
    tasks: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "train"
    assert exit_code(training(tasks, out, "obs=pixels+proprio")) == 0
    assert "sees the position to" in capsys.readouterr().out
    checkpoint = Checkpoint.load(out / "checkpoint")
    assert checkpoint.env == "push+reach" and checkpoint.model.readout is None
    small = ("obs=pixels+proprio", "episodes=1", f"checkpoint={out / 'checkpoint'}", "planner.samples=8")
    for env in ("push", "reach"):
        bench = ["bench", f"env={env}", *small, "planners=[cem]", "planner_seeds=[0]", "video_episodes=0"]
        assert main([*bench, "planner.iterations=1", "planner.horizon=2", f"out={tmp_path / env}"]) == 0
        (row,) = json.loads((tmp_path / env / "results.json").read_text())["rows"]
        assert row["env"] == env
    beside = tmp_path / "push-alone"
    assert exit_code(training(tasks[:1], beside, "obs=pixels+proprio")) == 0
    bench = ["bench", "env=push", *small[:2], f"checkpoint=[{beside / 'checkpoint'},{out / 'checkpoint'}]", small[3]]
    bench += ["planners=[cem]", "planner_seeds=[0]", "video_episodes=0", "planner.iterations=1", "planner.horizon=2"]
    assert main([*bench, f"out={tmp_path / 'beside'}"]) == 0
    rows = pool(read_results(tmp_path / "beside" / "results.json").rows)
    assert [row.model for row in rows] == ["of push", "of push+reach"], "and none of both: they are not two of a kind"
    capsys.readouterr()
    for settings, message in {
        "env=stack": "env=stack: the checkpoint was trained for env=push+reach",
        "env=push energy.metric=object": "energy.metric=object: the checkpoint reads no positions",
    }.items():
        assert main(["bench", *small, f"out={tmp_path / 'no'}", *settings.split(), "obs=pixels+proprio"]) == 2
        assert message in capsys.readouterr().err


def test_tasks_that_do_not_go_together_are_refused(
    tasks: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for settings, message in {
        "obs=state": "obs=state: state is not of one shape in push and reach",
        "obs=pixels prior.steps=5": "prior.steps=5: reads where things are, and not the same is tracked",
    }.items():
        assert exit_code(training(tasks, tmp_path / "out", *settings.split())) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_tracked_points_are_each_environment_s_own(tasks: list[Path]) -> None:
    data, (push, reach) = Recordings.open(tasks), (Dataset.open(folder) for folder in tasks)
    assert data.envs == ("push", "reach") and data.columns.keys() == {"pixels", "proprio", "action"}
    tracked = data.load_tracked("val", {"push": slice(9, 12), "reach": slice(0, 3)})
    np.testing.assert_array_equal(tracked[0], push.load("val", ["state"])["state"][0, :, 9:12])
    np.testing.assert_array_equal(tracked[1], reach.load("val", ["state"])["state"][0, :, :3])


def test_what_is_tracked_alike_is_read(state_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "pickplace"
    assert main(["record", "env=pickplace", "episodes=4", "length=20", "workers=1", f"out={data}"]) == 0
    assert exit_code(training([state_run / "data", data], tmp_path / "train")) == 0
    checkpoint = Checkpoint.load(tmp_path / "train" / "checkpoint")
    assert checkpoint.env == "push+pickplace" and checkpoint.model.architecture.readout == 3
