"""From the empty folder to a report, in miniature and for real: every command, interruptions, and the wheel."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import FOREARM, TINY
from forearm.cli import main
from forearm.commands import COMMANDS
from forearm.commands.overrides import parse
from forearm.evaluation.goals import GoalManifest
from forearm.evaluation.results import read_results
from forearm.evaluation.settings import BenchSettings

ROOT = Path(__file__).parent.parent
SMALL = (
    *("planner.samples=8", "planner.iterations=2", "planner.horizon=2", "episodes=2"),
    *("oracle.episodes=1", "video_episodes=1", "threads=1"),
)
ORACLE = {"oracle.samples": 4, "oracle.iterations": 1, "oracle.horizon": 2, "oracle.elites": 0.5}
"""Fields that only Python has."""
PLANNERS = ("cem", "mppi", "random", "zero", "expert", "oracle")
ROW = {
    *("env", "obs", "planner", "episodes", "successes", "success", "wilson", "reached", "seed"),
    *("plan_ms_p50", "plan_ms_p95", "evaluations"),
}


def bench(run: Path, obs: str, out: Path, *settings: str) -> list[str]:
    return ["bench", f"obs={obs}", f"checkpoint={run / 'train' / 'checkpoint'}", f"out={out}", *SMALL, *settings]


def outcome(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what depends on the machine."""
    return {key: value for key, value in row.items() if not key.startswith("plan_ms")}


def check_bench(out: Path, planners: tuple[str, ...]) -> dict[str, Any]:
    """Everything is there that a bench should leave; gives its results."""
    results = json.loads((out / "results.json").read_text())
    assert results["schema"] == 1
    assert results["manifest"] == GoalManifest.load(out / "goals.safetensors").sha256
    assert list(dict.fromkeys(row["planner"] for row in results["rows"])) == list(planners)
    for row in results["rows"]:
        assert row.keys() >= ROW
        assert row["successes"] == round(row["success"] * row["episodes"])
        assert 0 <= row["wilson"][0] <= row["success"] <= row["wilson"][1] <= 1
        assert row["success"] <= row["reached"] <= 1
        assert row["episodes"] == (1 if row["planner"] == "oracle" else 2)
        assert (row["evaluations"] > 0) == (row["planner"] in ("cem", "mppi", "oracle"))
    assert len(read_results(out / "results.json").rows) == len(results["rows"])
    report = (out / "report.html").read_text()
    assert results["manifest"] in report and all(name in report for name in planners)
    assert "<video" in report and "http" not in report.split("</style>")[1].replace("http://www.w3.org", "")
    assert b"ftyp" in (out / "cem.mp4").read_bytes()[:16] and (out / "success.png").stat().st_size > 5000
    assert not list(out.rglob(".*")), "temporary files were left behind"
    return results


def test_from_pixels(pixel_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """record and train ran for the fixture; this is the rest, twice."""
    assert main(["data", "check", str(pixel_run / "data")]) == 0
    results = []
    for name in ("one", "two"):
        seeds = "planner_seeds=[0,1]"
        words = bench(pixel_run, "pixels", tmp_path / name, f"planners=[{','.join(PLANNERS)}]", seeds)[1:]
        COMMANDS["bench"].load().run(parse(words, BenchSettings) | ORACLE)
        table = capsys.readouterr().out
        assert all(planner in table for planner in PLANNERS) and "report: " in table
        results.append(check_bench(tmp_path / name, PLANNERS))
    one, two = results
    assert [outcome(row) for row in one["rows"]] == [outcome(row) for row in two["rows"]]
    assert one["manifest"] == two["manifest"]
    seeds = {planner: [row["seed"] for row in one["rows"] if row["planner"] == planner] for planner in PLANNERS}
    assert seeds["cem"] == seeds["mppi"] == seeds["random"] == [0, 1] and seeds["zero"] == seeds["oracle"] == [0]
    config = yaml.safe_load((tmp_path / "one" / "config.yaml").read_text())
    assert config["planner"]["samples"] == 8 and config["env"]["name"] == "push"

    # demo, on goals that were kept
    goals = f"goals={tmp_path / 'one' / 'goals.safetensors'}"
    demo = ["demo", f"checkpoint={pixel_run / 'train' / 'checkpoint'}", goals, f"out={tmp_path / 'demo'}", *SMALL[:4]]
    assert main(demo) == 0
    assert "video: " in capsys.readouterr().out
    shown = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert shown["manifest"] == one["manifest"] and shown["rows"][0].keys() >= ROW
    assert shown["rows"][0]["successes"] == next(row for row in one["rows"] if row["planner"] == "cem")["successes"]
    assert b"ftyp" in (tmp_path / "demo" / "push.mp4").read_bytes()[:16]


def test_settings_of_the_planner_reach_the_others(state_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench"
    planners = "planners=[shooting,icem]"
    assert (
        main(bench(state_run, "state", out, planners, "planner.samples=6", "planner_seeds=[0]", "video_episodes=0"))
        == 0
    )
    rows = {row["planner"]: row for row in json.loads((out / "results.json").read_text())["rows"]}
    assert {(row["samples"], row["iterations"], row["horizon"]) for row in rows.values()} == {(6, 2, 2)}
    assert rows["shooting"]["evaluations"] == 12 and not list(out.glob("*.mp4"))


def test_energies_and_budgets_are_rows_of_one_table(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("planners=[cem,zero]", "energies=[own,l1/path/plain]", "budgets=[8x1,8x2]", "planner_seeds=[0]")
    assert main(bench(state_run, "state", tmp_path / "out", *sweep, "video_episodes=0")) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    assert [(row.get("energy"), row["evaluations"]) for row in rows] == [
        *(("mse, min", 8), ("mse, min", 16), ("l1, path, plain", 8), ("l1, path, plain", 16)),
        (None, 0),
    ]
    assert "l1, path, plain" in capsys.readouterr().out


def test_models_of_several_training_seeds_are_rows_of_one_table(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = state_run / "train" / "checkpoint"
    other = shutil.copytree(one, tmp_path / "other")
    told = json.loads((other / "config.json").read_text())
    told["about"]["seed"] = 7
    (other / "config.json").write_text(json.dumps(told))
    both = (f"checkpoint=[{one},{other}]", "planners=[cem,zero]", "planner_seeds=[0]", "video_episodes=0")
    words = [word for word in bench(state_run, "state", tmp_path / "out") if word != f"checkpoint={one}"]
    assert main([*words, *both]) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(row["planner"], row.get("model")) for row in results["rows"]] == [
        *(("cem", "seed 0"), ("cem", "seed 7")),
        ("zero", None),
    ]
    assert outcome(results["rows"][0]) | {"model": "seed 7"} == outcome(results["rows"][1])  # the weights are the same
    assert "training seed 0 (" in results["facts"]["model"] and "training seed 7 (" in results["facts"]["model"]
    assert "all 2" in capsys.readouterr().out


@pytest.mark.parametrize(("deadline", "late"), [(1e-6, True), (60.0, False)])
def test_late_plans_are_counted(state_run: Path, tmp_path: Path, deadline: float, late: bool) -> None:
    alone = ("planners=[cem]", "planner_seeds=[3]", "video_episodes=0", f"deadline={deadline:f}")
    assert main(bench(state_run, "state", tmp_path / "out", *alone)) == 0
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    budget = GoalManifest.load(tmp_path / "out" / "goals.safetensors").budget
    assert (row["episodes"], row["plans"]) == (2, 2 * budget)
    assert row["misses"] == (row["plans"] if late else 0)
    assert row["plan_ms_p50"] <= row["plan_ms_p95"] <= row["plan_ms_p99"]


def test_plans_that_are_good_enough_are_not_searched(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("planners=[cem]", "planner_seeds=[3]", "video_episodes=0", "planner.replan_above=1e9", "budgets=[8x2]")
    assert main(bench(state_run, "state", tmp_path / "out", *words, "energies=[own,l1/final/plain]")) == 0
    seldom, always = json.loads((tmp_path / "out" / "results.json").read_text())["rows"]
    plans = GoalManifest.load(tmp_path / "out" / "goals.safetensors").budget
    assert (seldom["planner"], always["planner"]) == (
        "cem + event-triggered",
        "cem",
    )  # what another energy has is unknown
    assert seldom["plans"] == 2 * plans and "misses" not in seldom and seldom["plan_ms_mean"] > 0
    assert seldom["evaluations"] == round((8 * 2 + plans - 1) / plans) and always["evaluations"] == 8 * 2
    assert "mean ms" in capsys.readouterr().out


def test_without_opengl_all_but_the_film_is_there(
    state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from forearm.envs import RenderingError, arm_env

    def no_camera(*_: object) -> None:
        raise RenderingError("install libegl1")

    monkeypatch.setattr(arm_env, "Camera", no_camera)
    assert main(bench(state_run, "state", tmp_path / "out", "planners=[cem]", "planner_seeds=[0]")) == 0
    assert "no film: install libegl1" in capsys.readouterr().out
    assert (tmp_path / "out" / "report.html").exists() and not list((tmp_path / "out").glob("*.mp4"))
    assert main(["record", f"out={tmp_path / 'data'}"]) == 2
    assert capsys.readouterr().err == "forearm: install libegl1\n" and not (tmp_path / "data").exists()


# Interruptions


def start(arguments: list[str], cwd: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [*FOREARM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )


def wait_for(path: Path, pattern: str, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while len(list(path.glob(pattern))) < count and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_quickstart_is_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        *("quickstart", "obs=state", "env=reach", "record_episodes=40", "workers=1", "steps=400", "horizon=2"),
        *("validate_every=200", "save_every=1000", "planners=[cem,zero]", f"out={tmp_path / 'run'}"),
        *TINY,
        *SMALL[:4],
        "video_episodes=1",
    ]
    # Once while it records, and once while it trains.
    for folder, pattern, count in (("data", "episode-*", 3), ("train", "log.jsonl", 1)):
        process = start(settings, tmp_path)
        wait_for(tmp_path / "run" / folder, pattern, count, process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130 and "Traceback" not in errors, errors
        _, told, command = errors.strip().splitlines()[-1].partition("forearm: stopped; to go on, forearm ")
        assert told and command.split()[0] == "quickstart" and f"out={tmp_path / 'run'}" in command.split()
        settings = command.split()
        assert not (tmp_path / "run" / "bench").exists()
    capsys.readouterr()
    assert main(settings) == 0
    assert "resumed" in (words := capsys.readouterr().out) and "done in" in words
    check_bench(tmp_path / "run" / "bench", ("cem", "zero"))
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "train" / "log.jsonl").read_text().splitlines()]
    assert steps == sorted([*range(20, 401, 20), 200, 400])
    assert main(settings) == 2 and "is finished" in capsys.readouterr().err


def test_a_killed_recording_is_finished_as_if_unbroken(tmp_path: Path) -> None:
    settings = ["record", "env=push", "obs=state", "episodes=40", "length=20", "seed=4"]
    assert main([*settings, f"out={tmp_path / 'unbroken'}", "workers=1"]) == 0
    out = tmp_path / "killed"
    process = start([*settings, f"out={out}", "workers=2"], tmp_path)
    wait_for(out, "episode-*", 5, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL and not (out / "manifest.json").exists()
    assert main([*settings, f"out={out}", "workers=1"]) == 0
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "unbroken").iterdir()}


# The wheel


def test_the_wheel_holds_forearm_alone(tmp_path: Path) -> None:
    pytest.importorskip("build")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    tracked = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    source = tmp_path / "source"  # a copy, so that the build finds no leftovers and leaves none
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"forearm"}
    held = {name.removeprefix("forearm/") for name in names if name.startswith("forearm/")}
    outside = ("tests/", "docs/", "benchmarks/", "examples/", ".")
    package = {name for name in tracked if not name.startswith(outside)}
    expected = {name for name in package if name.endswith((".py", ".yaml", ".xml", "py.typed"))}
    expected |= {name for name in package if name.startswith("models/pretrained/")}
    assert held == expected

    # It runs from there, outside the checkout.
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    code = (
        "import forearm; from forearm.presets import suited; from forearm.evaluation.settings import BenchSettings\n"
        "assert suited(BenchSettings, {'env': 'reach'}).planner.name == 'cem_gradient'\n"
    )
    code += "from forearm.envs import make; make('push', pixels=False).reset(seed=0); print(forearm.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout.strip() == str(tmp_path / "site" / "forearm" / "__init__.py"), done.stderr
