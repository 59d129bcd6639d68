"""Run folders that one writer owns; what people type; what programs register; what is too large or too old."""

import ast
import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from conftest import TINY, settings_of
from forearm import folders, gymnasium_ids, requirements
from forearm.cli import main
from forearm.commands import COMMANDS
from forearm.commands.help import command_help
from forearm.commands.overrides import parse
from forearm.console import enduring_output, terminable
from forearm.envs import TASKS, WORLDS, GymnasiumWorld, make, register, registry
from forearm.episodes import DataError, Dataset, workers
from forearm.episodes import check as check_data
from forearm.errors import UserError
from forearm.evaluation.entries import make_entries
from forearm.evaluation.goals import find_goals, make_goals
from forearm.evaluation.models import load_model
from forearm.evaluation.planners import measure_gap
from forearm.files import write_atomic
from forearm.folders import LOCK, FolderError, contents, new_folder, owned
from forearm.memory import in_memory, of
from forearm.models import checkpoint as checkpoints
from forearm.models.checkpoint import checkpoint_folder
from forearm.planner import CEM, PLANNERS
from forearm.presets import suited
from forearm.training import run as training
from forearm.training.loop import Trainer
from forearm.training.settings import TrainSettings

ROOT = Path(__file__).parent.parent
TRAIN = ("train", "obs=state", "steps=2", *TINY)


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ends with 2 and one line on stderr."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and re.search(f"^forearm: .*{message}", lines[0]), lines


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **env})


# Who owns a folder


def test_two_trainings_of_one_second_get_two_folders(
    state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders.time, "strftime", lambda _: "20260101-000000")
    real, begun = training.learn, []

    def learn(settings: Any, data: Any, out: Path, *rest: Any) -> Any:
        begun.append(out)
        if len(begun) == 1:  # the second one begins while the first one runs, and ends before it
            assert main([*TRAIN, f"data={state_run / 'data'}", "seed=2"]) == 0
        return real(settings, data, out, *rest)

    monkeypatch.setattr(training, "learn", learn)
    assert main([*TRAIN, f"data={state_run / 'data'}", "seed=1"]) == 0
    first = tmp_path / "runs" / "train" / "20260101-000000-push-state"
    for folder, seed in ((first, 1), (first.with_name(first.name + "-2"), 2)):
        assert f"\nseed: {seed}\n" in (folder / "config.yaml").read_text()
        assert json.loads((folder / "checkpoint" / "config.json").read_text())["about"]["seed"] == seed
        assert LOCK not in {path.name for path in folder.iterdir()}


HOLD = """
from pathlib import Path
from forearm.folders import owned
with owned(Path({!r})): print("held", flush=True); input()
"""


def test_a_folder_is_one_writers_and_a_killed_one_lets_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", HOLD.format(str(tmp_path))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        refused(["bench", "planners", f"out={tmp_path}"], "out=.*: another process writes to this folder", capsys)
        other.kill()
    assert (tmp_path / LOCK).exists() and not contents(tmp_path)  # what it leaves makes no folder used
    with owned(tmp_path) as folder:
        assert folder == tmp_path
    assert not list(tmp_path.iterdir())


def test_a_folder_goes_again_if_nothing_was_written(tmp_path: Path) -> None:
    for hold in (owned, new_folder):
        with pytest.raises(ZeroDivisionError), hold(tmp_path / "a" / "b"):
            raise ZeroDivisionError
        assert not (tmp_path / "a").exists()
        with pytest.raises(ZeroDivisionError), hold(tmp_path / "c") as folder:
            (folder / "kept").touch()
            raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "c-2"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_file_systems_without_locks_get_a_lock_file(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    patch = f"import fcntl\ndef flock(*_): raise OSError({code}, '')\nfcntl.flock = flock\n"
    killed = python(patch + HOLD.format(str(tmp_path)).replace("input()", "import os; os._exit(9)"))
    assert killed.returncode == 9 and "its file system has no locks" in killed.stderr, killed.stderr
    assert list(tmp_path.iterdir()) and not contents(tmp_path)

    monkeypatch.setattr(fcntl, "flock", flock)
    with owned(tmp_path):  # left by a process that is gone
        assert "its file system has no locks" in capsys.readouterr().err
        monkeypatch.setattr(folders, "SOFT_SECONDS", 0.05)
        if code == errno.ENOLCK:
            with pytest.raises(FolderError, match="another process writes"), owned(tmp_path):
                pass
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_synced_are_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, synced = os.fsync, []

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "Invalid argument")
        synced.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    assert write_atomic(tmp_path / "file", b"whole").read_bytes() == b"whole" and synced


# Where nothing can be written

COMMAND_LINES = {
    "train": (*TRAIN, "data={run}/data"),
    "bench": ("bench", "obs=state", "checkpoint={run}/train", "planners=[zero]", "episodes=1"),
    "demo": ("demo", "obs=state", "checkpoint={run}/train", "episodes=1"),
    "planners": ("bench", "planners", "device=cpu"),
    "record": ("record", "obs=state", "episodes=2", "length=2", "workers=1"),
    "quickstart": ("quickstart", "obs=state", "device=cpu"),
}


@pytest.mark.parametrize("command", COMMAND_LINES)
def test_out_that_cannot_be_written_to(
    command: str, state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [word.format(run=state_run) for word in COMMAND_LINES[command]]
    monkeypatch.chdir(tmp_path)

    def read_only(path: Any, *_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(os, "mkdir", read_only)
    refused(line, r"out=.*: cannot be written to \(Read-only file system\)", capsys)
    assert not list(tmp_path.iterdir())


def test_what_is_no_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "scratch")
    with pytest.raises(FolderError, match=r"dangling: is a link to .*scratch, which is"), owned(tmp_path / "dangling"):
        pass
    for path in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / "file" / "x" / "y"):
        with pytest.raises(FolderError, match=rf"out={path}: cannot be written to \(Not a directory"), owned(path):
            pass


def test_a_full_disk_in_training_leaves_what_was_saved(
    state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, written = tmp_path / "out", Path.write_bytes
    line = [*TRAIN, f"data={state_run / 'data'}", f"out={out}", "save_every=1"]

    def full(path: Path, data: bytes) -> int:
        if "snapshot" in path.name and (out / "snapshot.safetensors").exists():
            raise OSError(errno.ENOSPC, "No space left on device")  # as it is of a write: no file is named
        return written(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    capsys.readouterr()
    assert main(line) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"out=.*No space left on device\); make room, and resume=true goes on", last), last
    monkeypatch.undo()
    assert main(["train", "resume=true", f"out={out}"]) == 0


def test_not_every_error_is_the_folders(tmp_path: Path) -> None:
    for error in (FileNotFoundError(errno.ENOENT, "", "/elsewhere"), OSError("odd"), ValueError("no")):
        with pytest.raises(type(error)) as caught, owned(tmp_path):
            raise error
        assert caught.value is error


def test_files_of_the_system_are_nobodys(state_run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for folder in (data, Path(shutil.copytree(state_run / "data", tmp_path / "whole"))):
        for name in (".DS_Store", ".gitkeep", "Thumbs.db", LOCK):
            (folder / name).touch()
        (folder / "lost+found").mkdir()
    folders.check_free(data)
    assert main(["record", "obs=state", "episodes=2", "length=2", "workers=1", f"out={data}"]) == 0
    assert check_data(data).ok and check_data(tmp_path / "whole").ok
    (data / "notes.txt").touch()
    assert [problem.file for problem in check_data(data).problems] == ["notes.txt"]


# What is typed


def test_every_folder_is_checked(state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, broken = str(state_run / "data"), tmp_path / "it's, broken"
    shutil.copytree(good, broken)
    os.truncate(broken / "episode-000002.safetensors", 100)
    assert main(["data", "check", str(broken), good]) == 2
    text = capsys.readouterr().out
    assert f"{good}: 6 episodes" in text and "episode-000002.safetensors: truncated" in text
    assert main(["data", "check", str(tmp_path / "nowhere"), str(broken)]) == 2
    told = capsys.readouterr()
    assert "episode-000002.safetensors: truncated" in told.out and "nowhere: no such folder" in told.err
    assert main(["data", "check", good, good]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train data=A data=B", r"data is given twice, as data=A and data=B; give one list, data=\[…,…\]"),
        ("bench planners=[cem] planners=[mppi]", "planners is given twice"),
        ("train seed=0,1,2", "seed=0,1,2: must be a whole number; --multirun runs once for each of 0 1 2"),
        ("record env=push,reach", "env=push,reach: must be a word; --multirun runs once for each of push reach"),
        ("train seed=1 --multirun", "--multirun: give a key several values, such as"),
        ("train data=", "data=: must be a path, or several"),
        ("train data=[A,,B]", "must be a path, or several"),
        ("train data=[]", "data: give the folder that `forearm record` wrote"),
        ("demo out=", "out=: must be a path, or null"),
    ],
)
def test_one_value_a_key(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(words.split(), message, capsys)


def test_of_two_values_the_last_one_counts_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert settings_of("record", ["seed=1", "env=push", "seed=2", "env=push"]).seed == 2
    assert capsys.readouterr().err == "forearm: seed=2 counts, not the seed=1 before it\n"


def test_paths_as_they_are_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    for text in ("[A, B]", "['A', \"B\"]", "[ A ,B ]"):
        assert list(settings_of("train", [f"data={text}"]).data) == ["A", "B"]
    assert list(settings_of("train", ["data=['a, b', it's]"]).data) == ["a, b", "it's"]
    assert list(settings_of("train", ["data=[~/a,/b~]"]).data) == ["/home/ada/a", "/b~"]
    config = settings_of("bench", ["out=~/x", "checkpoint='A'", 'goals="g"'])
    assert (config.out, list(config.checkpoint), config.goals) == ("/home/ada/x", ["A"], "g")
    assert list(settings_of("bench", ["checkpoint=[]"]).checkpoint) == []


def test_a_runs_folder_stands_for_what_is_in_it(state_run: Path, tmp_path: Path) -> None:
    for named in (state_run / "train", state_run):
        assert checkpoint_folder(str(named)) == state_run / "train" / "checkpoint"
    assert checkpoint_folder("nowhere") == Path("nowhere")
    env = make("push", pixels=False)
    manifest = make_goals(env, 1, seed=5)
    manifest.save(tmp_path / "goals.safetensors")
    goals = find_goals(settings_of("bench", [f"goals={tmp_path}", "obs=state"]), env)
    assert goals.sha256 == manifest.sha256


def test_data_that_is_no_recording_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file: is a file; give the folder"):
        Dataset.open(tmp_path / "file")
    (tmp_path / "lerobot" / "meta").mkdir(parents=True)
    (tmp_path / "lerobot" / "meta" / "info.json").write_text('{"codebase_version": "v3.0"}')
    with pytest.raises(DataError, match=r"lerobot: is no recording of Forearm's but a LeRobot set \(v3\.0\)"):
        Dataset.open(tmp_path / "lerobot")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data.hdf5").touch()
    with pytest.raises(DataError, match="other: is no recording of Forearm's but HDF5 files"):
        Dataset.open(tmp_path / "other")


def test_help_has_a_line_for_every_key() -> None:
    text = command_help(COMMANDS["train"], everything=True)
    assert re.search(r"^  prior\.steps=0 +a learned action prior, .* its$\n +steps; 0: none$", text, re.MULTILINE)
    text = command_help(COMMANDS["bench"], everything=True)
    assert re.search(r"^  energy\.control=0\.0 +weight of the mean squared", text, re.MULTILINE)


# Going on


def test_sigterm_saves_and_the_folder_alone_resumes(
    state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, run = tmp_path / "out", Trainer.run
    line = [*TRAIN, f"data={state_run / 'data'}", f"out={out}", "steps=4", "model.latent=12", "objective=sigreg"]
    line.remove("steps=2")
    line.remove("model.latent=8")

    def terminated(trainer: Trainer, record: Any) -> Iterator[Any]:
        for step in run(trainer, record):
            signal.raise_signal(signal.SIGTERM)
            yield step

    monkeypatch.setattr(Trainer, "run", terminated)
    before = signal.getsignal(signal.SIGTERM)
    assert main(line) == 130
    assert signal.getsignal(signal.SIGTERM) is before
    hint = re.search(r"to go on, forearm (train .*) \(saved at step 1\)", capsys.readouterr().err)
    assert hint and hint[1] == f"train resume=true out={out}"
    monkeypatch.undo()
    for words, message in (
        ("objective=vicreg", "objective=vicreg: this training was begun with objective=sigreg; keep it to resume"),
        ("model.latent=9", r"model\.latent=9: this training was begun with model\.latent=12"),
    ):
        refused([*hint[1].split(), *words.split()], message, capsys)
    assert main(hint[1].split()) == 0
    assert "resumed" in capsys.readouterr().out
    assert json.loads((out / "checkpoint" / "config.json").read_text())["about"]["steps"] == 4
    held = training.begun(parse(["resume=true", f"out={out}"], TrainSettings))
    assert suited(TrainSettings, held).model.latent == 12


def test_sigterm_where_ctrl_c_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_host_programs_own_way_with_sigterm_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_workers_leave_signals_to_their_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    with workers._interrupts_held():
        held = signal.pthread_sigmask(signal.SIG_BLOCK, set())
    assert {signal.SIGINT, signal.SIGTERM} <= held
    monkeypatch.delattr(signal, "pthread_sigmask")  # as on Windows
    with workers._interrupts_held():
        pass


def test_nothing_is_imported_that_windows_lacks() -> None:
    lacking = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [ROOT.joinpath(*name.split(".")[1:]) for name in project["tool"]["setuptools"]["packages"]]
    sources = [path for package in packages for path in package.glob("*.py")]
    assert ROOT / "episodes" / "recorder.py" in sources
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not lacking & set(names), source


def test_a_closed_pipe_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "stderr", pipe)
        out = tmp_path / "out"
        assert main(["record", "obs=state", "episodes=3", "length=2", "workers=1", f"out={out}"]) == 0
        assert main(["bench", "--help"]) == 0
        with enduring_output():
            print("x" * 100_000)
        monkeypatch.undo()
    assert check_data(out).ok


# Beside a host program


def test_hydra_of_the_host_program_stays(tmp_path: Path) -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "a.yaml").write_text("x: 1")
    with hydra.initialize_config_dir(str(tmp_path), version_base=None):
        assert hydra.compose("a").x == 1
        assert settings_of("record", ["seed=3"]).seed == 3
        assert hydra.compose("a").x == 1
    assert not GlobalHydra.instance().is_initialized()


def test_gymnasium_knows_the_tasks_once_forearm_is_imported() -> None:
    assert dict(gymnasium_ids.IDS.values()) == {t.name: t.budget for t in TASKS.values()}
    assert gymnasium.make("forearm/Reach-v0", pixels=False).unwrapped.name == "reach"  # pyright: ignore[reportAttributeAccessIssue]
    code = (
        "import forearm, sys; assert not {'gymnasium', 'numpy', 'mujoco'} & set(sys.modules)\n"
        "import gymnasium; print(gymnasium.spec('forearm/Push-v0').max_episode_steps, 'mujoco' in sys.modules)"
    )
    done = python(code)
    assert done.stdout.split() == ["60", "False"], done.stderr


def test_python_m_forearm() -> None:
    done = subprocess.run([sys.executable, "-m", "forearm", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("forearm ")


# What programs register


def make_reacher(pixels: bool = False, size: int = 64, gear: float = 20.0, *, label: str | None = None) -> Any:
    env: Any = gymnasium.make("Reacher-v5")
    env.unwrapped.model.actuator_gear[:, 0] = gear
    return GymnasiumWorld(
        "geared",
        env,
        points=lambda data: data.body("fingertip").xpos[None],
        tolerance=0.03,
        budget=6,
        pixels=pixels,
        size=size,
        observe=lambda env: np.concatenate([env.data.qpos[:2], env.data.qvel[:2]]),
        place_goal=lambda env, _: env.set_state(env.data.qpos + np.array([1.0, 1.0, 0.0, 0.0]), np.zeros(4)),
    )


@pytest.fixture
def geared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WORLDS, "parts", dict(WORLDS.parts))
    register("geared", make_reacher)


@pytest.mark.usefixtures("geared")
def test_parameters_of_an_own_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    record = ["record", "env=geared", "obs=state", "episodes=4", "length=8", "workers=1"]
    refused(
        [*record, "env.gaer=5"],
        r"no key 'env\.gaer'; did you mean env\.gear\? .*: env\.size, env\.gear, env\.label",
        capsys,
    )
    refused([*record, "env.gear=fast"], r"env\.gear=fast: must be a number", capsys)
    assert main([*record, "env.gear=5", "out=data"]) == 0
    assert Dataset.open(Path("data")).manifest.env_config == {"pixels": False, "size": 64, "gear": 5}
    assert main([*TRAIN, "data=data", "horizon=2", "out=run"]) == 0
    made: list[float] = []

    def remade(gear: float = 20.0, **rest: Any) -> Any:
        made.append(gear)
        return make_reacher(gear=gear, **rest)

    monkeypatch.setitem(WORLDS.parts, "geared", remade)
    words = ["env=geared", "obs=state", "planners=[zero]", "episodes=1", "video_episodes=0", "checkpoint=run"]
    assert main(["bench", *words, "out=bench"]) == 0
    assert made and set(made) == {5}
    assert "gear: 5" in Path("bench/config.yaml").read_text()
    assert "env.gear=5" in json.loads(Path("bench/results.json").read_text())["command"]


def test_a_worker_that_does_not_know_a_world_says_where_to_register(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="env=mine is unknown; choose one of: reach"):
        registry.make_world("mine")
    monkeypatch.setattr(registry, "parent_process", lambda: "the program that registered it")
    with pytest.raises(UserError, match=r"env=mine is unknown to this worker .*top level.*__main__.*workers=1"):
        registry.make_world("mine")


def test_floors_need_no_checkpoint(state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "shipped", lambda: tmp_path)  # none is shipped
    words = ["obs=state", "planners=[random,zero]", "episodes=1", "planner_seeds=[0]", "video_episodes=0"]
    assert main(["bench", *words, f"out={tmp_path / 'bare'}"]) == 0
    rows = json.loads((tmp_path / "bare" / "results.json").read_text())["rows"]
    assert [row["planner"] for row in rows] == ["random", "zero"]
    # They are what they are beside a checkpoint of the chunk that training gives by default.
    cpu = torch.device("cpu")
    checkpoint = load_model(settings_of("bench", words), str(state_run), cpu)
    env = make("push", pixels=False)
    entries = [make_entries(settings_of("bench", words), env, models, cpu) for models in ([], [checkpoint])]
    assert vars(entries[0][0].controller) == vars(entries[1][0].controller)


@dataclass(frozen=True, eq=False, kw_only=True)
class Annealed(CEM):
    cooling: float = 0.5


def test_a_registered_planner_is_known_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(PLANNERS.parts, "annealed", Annealed)
    settings = settings_of("bench", ["planner=annealed", "planner.cooling=0.3", "planner.samples=8"])
    planner = settings.planner.build([-1.0], [1.0], 2)
    assert isinstance(planner, Annealed) and (planner.cooling, planner.samples) == (0.3, 8)
    refused(["demo", "planner=annealed", "planner.coling=1"], r"did you mean planner\.cooling", capsys)
    refused(["demo", "planner=annaeled"], "planner=annaeled is unknown; choose one of: cem, .*, annealed", capsys)
    (tried,) = settings_of("bench", ["planners=[annealed,cem]", "planner.samples=4"]).tried["annealed"]
    planned = tried.build([-1.0], [1.0], 2)
    assert isinstance(planned, Annealed) and planned.samples == 4
    gap = measure_gap("double_integrator", "annealed", 2, torch.device("cpu"))
    assert gap.planner == "annealed" and gap.evaluations > 256
    refused(["bench", "planners", "planners=[foo]"], "planners=foo is unknown; choose one of: .*annealed", capsys)


# What is too large, or too old


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            ("train", "obs=state", "steps=2", "data={run}/data", *TINY[:2], *TINY[3:], "batch=2000000000000"),
            "batch=2000000000000",
        ),
        (
            ("bench", "obs=state", "checkpoint={run}", "planners=[cem]", "episodes=1", "planner.samples=2000000000000"),
            r"planner\.samples=2000000000000, episodes=1",
        ),
    ],
)
def test_too_much_for_the_memory(
    line: tuple[str, ...], message: str, state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main([*(word.format(run=state_run) for word in line), f"out={tmp_path / 'out'}"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(f"{message}.*: takes more memory than there is; lower", last), last


def test_memory_errors_of_numpy_and_torch_are_known() -> None:
    keys = of(settings_of("train", []), "batch")
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), ValueError("array is too big; no")):
        with pytest.raises(UserError, match="batch=96: takes more memory"), in_memory(keys):
            raise error
    with pytest.raises(RuntimeError, match="shapes"), in_memory(keys):
        raise RuntimeError("shapes do not fit")


@contextmanager
def installed(monkeypatch: pytest.MonkeyPatch, name: str, release: str) -> Iterator[None]:
    real = metadata.version
    with monkeypatch.context() as patch:
        patch.setattr(requirements, "requires", lambda _: ["mujoco<5,>=3.17", 'ogbench>=9; extra == "ogbench"'])
        patch.setattr(requirements, "version", lambda asked: release if asked == name else real(asked))
        yield


def test_packages_that_are_too_old_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with installed(monkeypatch, "mujoco", "3.17.0"):
        assert not requirements.outdated()
    with installed(monkeypatch, "mujoco", "5.0.1"):
        assert "newer" in requirements.outdated()["mujoco"]
    with installed(monkeypatch, "mujoco", "3.3.0"):
        assert main(["doctor"]) == 2
        assert re.search("mujoco +DOES NOT WORK: mujoco 3.3.0 is too old; .*mujoco<5,>=3.17", capsys.readouterr().out)
        from forearm.commands import data

        def lacking(_: object) -> None:
            raise ModuleNotFoundError("No module named 'mujoco.batch'")

        monkeypatch.setattr(data, "run", lacking)
        refused(["data", "check", "x"], "mujoco 3.3.0 is too old; forearm needs mujoco<5,>=3.17: pip install", capsys)
    with pytest.raises(ModuleNotFoundError):
        main(["data", "check", "x"])
