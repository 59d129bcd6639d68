"""Recording that cannot be broken, checks that name what is, and windows: on a toy world, so in seconds."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forearm.episodes import (
    DataError,
    Dataset,
    Manifest,
    RecordRequest,
    WindowSampler,
    WorkerError,
    check,
    evaluation_windows,
    record,
    windows,
)
from forearm.episodes.store import episode_name, leftovers, read_header, write_episode
from forearm.folders import FolderError
from safetensors.numpy import load, save

REQUEST = RecordRequest(env="toy", seed=3, episodes=6, length=8, config={"size": 4})
SLOW = replace(REQUEST, policy="slow", episodes=40)


class Toy:
    """A point that is pushed about; it reuses its buffers, as a careless environment may."""

    renderer_name = "numpy"

    def __init__(self, name: str, size: int | None = 4) -> None:
        self.name, self.config, self.size = name, {"size": size}, size
        self.position = np.zeros(2)

    def reset(self, *, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        self.position[:] = np.random.default_rng(seed).normal(size=2)
        return self.observe(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.position += 0.1 * action
        return self.observe(), 0.0, True, True, {}

    def observe(self) -> dict[str, np.ndarray]:
        parts = {"proprio": self.position.astype(np.float32), "state": np.array([*self.position, 1.0], np.float32)}
        if self.size is not None:
            shade = np.uint8(abs(self.position[0] * 1e4) % 256)
            parts["pixels"] = np.full((self.size, self.size, 3), shade)
        return parts

    def save_state(self) -> np.ndarray:
        return self.position

    def close(self) -> None: ...


class Actor:
    def __init__(self, name: str, env: Toy, rng: np.random.Generator) -> None:
        self.name, self.rng = name, rng

    def reset(self) -> None:
        if self.name == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "fails":
            raise RuntimeError("no idea what to do")

    def act(self) -> np.ndarray:
        if self.name == "slow":
            time.sleep(0.002)
        return self.rng.uniform(-1, 1, 2) * (9 if self.name == "wild" else 1)


def toy_record(request: RecordRequest, folder: Path, workers: int = 1) -> Manifest:
    return record(request, folder, workers, make_env=Toy, make_policy=Actor)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    toy_record(REQUEST, folder)
    return folder


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "copy"))


# Recording


def test_any_number_of_workers_records_the_same_bytes(recorded: Path, tmp_path: Path) -> None:
    toy_record(REQUEST, tmp_path, workers=3)
    assert content(tmp_path) == content(recorded)
    assert check(recorded).ok, check(recorded).lines()


def test_an_episode_holds_what_happened(recorded: Path) -> None:
    data = Dataset.open(recorded).load("train", ["pixels", "proprio", "state", "action", "sim"])
    assert data["pixels"].shape == (5, 9, 4, 4, 3)
    assert data["sim"].shape == (5, 9, 2)
    np.testing.assert_allclose(np.diff(data["sim"], axis=1), 0.1 * data["action"].astype(float), atol=1e-12)
    np.testing.assert_array_equal(data["state"][..., :2], data["proprio"])
    assert len(np.unique(data["sim"][:, 0, 0])) == 5
    origin = read_header(recorded / "episode-000002.safetensors").origin
    assert (origin.index, origin.env, origin.seed, origin.renderer) == (2, "toy", 3, "numpy")
    assert origin.versions.keys() == {"forearm", "mujoco", "numpy"}


def test_pixels_are_optional(tmp_path: Path) -> None:
    manifest = toy_record(replace(REQUEST, config={"size": None}), tmp_path)
    assert manifest.columns.keys() == {"proprio", "state", "action", "sim"}
    with pytest.raises(DataError, match="no column 'pixels'; choose from action, proprio, sim, state"):
        Dataset.open(tmp_path).load("train", ["pixels"])


def test_recording_again_changes_nothing_and_mends_what_is_lost(copy: Path) -> None:
    before = content(copy)
    stamps = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    toy_record(REQUEST, copy)
    assert stamps == {path: path.stat().st_mtime_ns for path in copy.iterdir()}
    (copy / "episode-000001.safetensors").unlink()
    (copy / "episode-000002.safetensors").write_bytes(before["episode-000002.safetensors"][:-5])
    (copy / "manifest.json").write_text("{")
    toy_record(REQUEST, copy)
    assert content(copy) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed=3, asked for is seed=4"),
        ({"length": 9}, "length=8, asked for is length=9"),
        ({"policy": "slow"}, "policy=play, asked for is policy=slow"),
        ({"config": {"size": 5}}, r"config={'size': 4}, asked for is config={'size': 5}"),
    ],
)
def test_another_request_is_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    before = content(copy)
    with pytest.raises(DataError, match=message):
        toy_record(replace(REQUEST, **change), copy)
    assert content(copy) == before


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"holds 'thesis\.tex' and no recording"):
        toy_record(REQUEST, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_set_is_not_finished_by_another_version(copy: Path) -> None:
    begun = json.loads((copy / "recording.json").read_text())
    begun["versions"]["mujoco"] = "2.3.0"
    (copy / "recording.json").write_text(json.dumps(begun))
    toy_record(REQUEST, copy)  # complete: nothing to record, nothing to object to
    (copy / "episode-000001.safetensors").unlink()
    with pytest.raises(DataError, match=r"was begun with mujoco 2\.3\.0"):
        toy_record(REQUEST, copy)


@pytest.mark.parametrize("change", [{"episodes": 1}, {"length": 0}, {"seed": -1}, {"val_fraction": 1.0}])
def test_a_bad_request_names_the_key(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(change))):
        replace(REQUEST, **change)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "fails"}, "episode [01] failed: RuntimeError: no idea what to do"),
        ({"policy": "wild"}, r"episode [01] failed: ValueError: policy 'wild' .* outside \[-1, 1\]"),
        ({"config": {"colour": "red"}}, "no episode could be started: TypeError: .*'colour'"),
    ],
)
def test_a_failing_episode_is_named(tmp_path: Path, change: dict[str, Any], workers: int, message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        toy_record(replace(REQUEST, **change), tmp_path, workers)
    begun = [] if "config" in change else ["recording.json"]  # what cannot be made tells nothing of itself
    assert [path.name for path in tmp_path.iterdir()] == begun


def test_a_killed_worker_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"episode [01] failed: its worker was killed by SIGKILL"):
        toy_record(replace(REQUEST, policy="dies"), tmp_path, workers=2)


def test_workers_load_no_torch() -> None:
    code = "import sys, forearm.episodes; sys.exit('torch' in sys.modules or 'mujoco' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Interruptions. The recording runs as a process group of its own, like a command in a terminal.

SCRIPT = """
import sys
from pathlib import Path
from test_episodes import SLOW, toy_record
try:
    toy_record(SLOW, Path(sys.argv[1]), workers=2)
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


def start(folder: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_more_episodes(folder: Path, process: subprocess.Popen[str]) -> None:
    def count() -> int:
        return len(list(folder.glob("episode-*")))

    before, deadline = count(), time.monotonic() + 20
    while count() == before and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def alive(group: int) -> bool:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "ZX":
            return True
    return False


def wait_for_end(group: int) -> None:
    deadline = time.monotonic() + 10
    while alive(group):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("unbroken")
    toy_record(SLOW, folder)
    return content(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_sigkill_at_any_instant_then_resume(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "set"
    folder.mkdir()
    for _ in range(4):
        process = start(folder)
        wait_for_more_episodes(folder, process)
        time.sleep(rng.uniform(0, 0.04))
        process.kill()
        process.communicate()
        wait_for_end(process.pid)
        for path in folder.glob("episode-*"):
            assert path.read_bytes() == unbroken[path.name]
    assert not (folder / "manifest.json").exists()
    with pytest.raises(DataError, match="the recording is not complete"):
        Dataset.open(folder)
    assert {re.split("[:,]| by", problem.what)[0] for problem in check(folder).problems} <= {
        "missing",
        "left over",
    }
    toy_record(SLOW, folder)
    assert content(folder) == unbroken


def test_what_was_damaged_is_recorded_again(copy: Path, recorded: Path) -> None:
    damaged = copy / episode_name(1)
    flipped = bytearray(damaged.read_bytes())
    flipped[-3] ^= 0x40
    damaged.write_bytes(flipped)
    (copy / episode_name(2)).unlink()
    assert "the same `forearm record` command again" in check(copy).lines()[-1]
    toy_record(REQUEST, copy)
    assert check(copy).ok and content(copy) == content(recorded)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_leaves_nothing_half_done(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    process = start(tmp_path)
    wait_for_more_episodes(tmp_path, process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert errors.strip() == "interrupted"
    wait_for_end(process.pid)
    assert not leftovers(tmp_path)
    assert not (tmp_path / "manifest.json").exists()
    toy_record(SLOW, tmp_path)
    assert content(tmp_path) == unbroken


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_two_recorders_do_not_share_a_folder(tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_more_episodes(tmp_path, process)
    with pytest.raises(FolderError, match="another process writes to this folder"):
        toy_record(SLOW, tmp_path)
    process.kill()
    process.communicate()


# Checking


def rewrite(path: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """A file that is whole but holds something else: what a buggy writer would leave."""
    columns = {name: array.copy() for name, array in load(path.read_bytes()).items()}
    change(columns)
    write_episode(path.parent, read_header(path).origin, columns)


def flip_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads((folder / "manifest.json").read_text())
    change(value)
    (folder / "manifest.json").write_text(json.dumps(value))


EPISODE = "episode-000002.safetensors"
HEADERS = {
    "truncated": (EPISODE, "truncated or corrupted", lambda f: os.truncate(f / EPISODE, 700)),
    "empty": (EPISODE, "truncated or corrupted", lambda f: os.truncate(f / EPISODE, 0)),
    "garbage": (EPISODE, "truncated or corrupted", lambda f: (f / EPISODE).write_bytes(b"\xff" * 999)),
    "missing": (EPISODE, "missing", lambda f: (f / EPISODE).unlink()),
    "a folder": (EPISODE, "corrupted", lambda f: ((f / EPISODE).unlink(), (f / EPISODE).mkdir())),
    "foreign tensors": (EPISODE, "foreign", lambda f: (f / EPISODE).write_bytes(save({"x": np.zeros(3)}))),
    "swapped": (EPISODE, "index is 1, not 2", lambda f: shutil.copy(f / EPISODE.replace("2", "1"), f / EPISODE)),
    "short": (EPISODE, "shape", lambda f: rewrite(f / EPISODE, lambda c: c.update(state=c["state"][:-1]))),
    "wide": (EPISODE, "shape|is", lambda f: rewrite(f / EPISODE, lambda c: c.update(sim=np.zeros((9, 3))))),
    "dtype": (EPISODE, "float64, not float32", lambda f: rewrite(f / EPISODE, lambda c: c.update(state=c["sim"]))),
    "column gone": (EPISODE, "'sim' is missing", lambda f: rewrite(f / EPISODE, lambda c: c.pop("sim"))),
    "column more": (EPISODE, "'x' is foreign", lambda f: rewrite(f / EPISODE, lambda c: c.update(x=np.ones(2)))),
    "rewritten": (EPISODE, "checksum is", lambda f: rewrite(f / EPISODE, lambda c: c["sim"].fill(0))),
    "no manifest": ("manifest.json", "missing", lambda f: (f / "manifest.json").unlink()),
    "bad manifest": ("manifest.json", "JSON", lambda f: (f / "manifest.json").write_text("{")),
    "old manifest": ("manifest.json", "schema is 0", lambda f: edit_manifest(f, lambda m: m.update(schema=0))),
    "no split": ("manifest.json", "not a valid manifest", lambda f: edit_manifest(f, lambda m: m.pop("split"))),
    "leaky split": ("manifest.json", "'split'", lambda f: edit_manifest(f, lambda m: m["split"]["val"].append(0))),
}
CONTENTS = {
    "flipped bit": (EPISODE, "checksum mismatch", lambda f: flip_last_byte(f / EPISODE)),
    "NaN": (
        EPISODE,
        "'sim' is NaN .* row 4",
        lambda f: rewrite(f / EPISODE, lambda c: c["sim"].__setitem__(4, np.nan)),
    ),
    "action": (EPISODE, "reaches 2, outside", lambda f: rewrite(f / EPISODE, lambda c: c["action"].fill(-2))),
    "foreign file": ("notes.txt", "foreign", lambda f: (f / "notes.txt").touch()),
    "leftover": (f".{EPISODE}.12.tmp", "left over", lambda f: (f / f".{EPISODE}.12.tmp").touch()),
}


@pytest.mark.parametrize("kind", [*HEADERS, *CONTENTS])
def test_check_names_every_file_and_why(copy: Path, kind: str) -> None:
    name, message, damage = (HEADERS | CONTENTS)[kind]
    damage(copy)
    report = check(copy)
    assert not report.ok
    assert {problem.file for problem in report.problems} == {name}
    assert any(re.search(f"{name}: .*({message})", line) for line in report.lines()), report.lines()
    if kind in HEADERS:
        with pytest.raises(DataError, match=f"{name}.*forearm data check"):
            Dataset.open(copy)


def test_check_of_nothing(tmp_path: Path) -> None:
    assert check(tmp_path).lines()[1] == "  manifest.json: missing; the folder is empty"
    for use in (check, Dataset.open):
        with pytest.raises(DataError, match="no such folder"):
            use(tmp_path / "nowhere")


# Splits and windows


def test_splits_are_disjoint_and_stable(recorded: Path) -> None:
    request = replace(REQUEST, episodes=200)
    split = request.split()
    assert sorted(split["train"] + split["val"]) == list(range(200))
    assert len(split["val"]) == 10
    assert split == request.split()
    assert split != replace(request, seed=1).split()
    manifest = Manifest.read(recorded)
    assert manifest.split == REQUEST.split()
    assert len(manifest.split["val"]) == 1
    assert manifest.request == REQUEST
    with pytest.raises(DataError, match="split=test: choose one of train, val"):
        Dataset.open(recorded).load("test", ["state"])


def test_windows_are_cut_at_chunk_boundaries() -> None:
    episode, time_ = np.meshgrid(np.arange(4), np.arange(11), indexing="ij")
    arrays = {"state": np.stack([episode, time_], -1), "action": np.stack([episode, time_], -1)[:, :-1]}
    sampler = WindowSampler(episodes=4, length=10, span=6, batch=64, seed=5)
    rows, start_ = sampler.indices(7)
    cut = windows(arrays, rows, start_, chunk=3, horizon=2)
    assert cut["state"].shape == (64, 3, 2)
    assert cut["action"].shape == (64, 6, 2)
    for b in range(64):
        assert cut["state"][b].tolist() == [[rows[b], start_[b] + offset] for offset in (0, 3, 6)]
        assert cut["action"][b].tolist() == [[rows[b], start_[b] + offset] for offset in range(6)]


def test_sampling_is_uniform_and_depends_on_seed_and_step_alone() -> None:
    sampler = WindowSampler(episodes=4, length=10, span=6, batch=4000, seed=5)
    first = [sampler.indices(step) for step in (9, 0, 9)]
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], replace(sampler, seed=6).indices(9))
    counts = np.zeros((4, 5))
    np.add.at(counts, first[0], 1)
    assert counts.min() > 150  # 200 expected
    with pytest.raises(DataError, match=r"window of 11 .* episodes of 10"):
        replace(sampler, span=11)


def test_evaluation_windows_cover_everything() -> None:
    rows, start_ = evaluation_windows(episodes=3, length=10, span=4)
    assert list(zip(rows.tolist(), start_.tolist(), strict=True))[:3] == [(0, 0), (0, 4), (0, 6)]
    assert len(rows) == 9
    few, _ = evaluation_windows(episodes=3, length=10, span=4, limit=3)
    assert few.tolist() == [0, 1, 2]
