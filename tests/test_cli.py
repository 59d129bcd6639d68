"""The command line: help that tells all, and bad input that ends in one line, with nothing overwritten."""

import json
import math
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

import forearm
import pytest
import torch
from conftest import FOREARM, settings_of
from forearm.cli import main
from forearm.commands import COMMANDS, common, quickstart
from forearm.commands.help import command_help
from forearm.commands.overrides import class_of
from forearm.envs import make
from forearm.episodes import Dataset
from forearm.errors import UserError
from forearm.evaluation.controllers import HoldController, LatentMPC
from forearm.evaluation.goals import make_goals
from forearm.evaluation.models import load_model
from forearm.models import checkpoint
from forearm.parts import registry
from forearm.settings import keys, tree, write_settings

# Help


@pytest.mark.parametrize("arguments", [["--help"], ["data", "check", "-h"], ["--version"]])
def test_help_comes_before_anything_heavy_is_imported(arguments: list[str]) -> None:
    heavy = {"torch", "matplotlib", "tensorboard"}
    code = f"import sys; from forearm.cli import main; main({arguments}); sys.exit(len({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "forearm" in done.stdout and not done.stderr


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"], ["help"]):
        assert main(arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        for command in COMMANDS.values():
            assert f"{command.name} " in " ".join(lines) and any(line.endswith(command.summary) for line in lines)


def every_key(name: str) -> set[str]:
    """The keys of a command, whatever planner and energy are chosen, and whoever acts."""
    settings, found = COMMANDS[name].load().SETTINGS, set()
    for given in ({}, {"policy": "planner"}) if name == "record" else ({},):
        cls = class_of(settings, given)
        for planner in registry("planner"):
            for energy in registry("energy"):
                found |= {key.name for key in keys(cls, {"planner": planner, "energy": energy})}
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_lists_what_can_be_set(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "episodes=3", "--help=all"]) == 0
    text = capsys.readouterr().out
    assert text == command_help(COMMANDS[name], everything=True) + "\n"
    keys_told, _, _ = text.partition(", unless set otherwise")
    listed = re.findall(r"^  ([\w.]+)=\S+(?:  |$)", keys_told, re.MULTILINE)
    assert set(listed) == every_key(name)
    for kind in ("planner", "energy"):
        if kind in listed:
            (told,) = re.findall(rf"^  {kind}=\w+ +(.*)", text, re.MULTILINE)
            assert len(registry(kind)) == 1 or all(part in told for part in registry(kind))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_short(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    listed = re.findall(r"^  ([\w.]+)=\S+(?:  |$)", text, re.MULTILINE)
    assert len(text.splitlines()) <= 40 and set(listed) <= every_key(name)
    whole, _, _ = command_help(COMMANDS[name], everything=True).partition("\n\n  with ")
    shown = len(re.findall(r"^  [\w.]+=", whole, re.MULTILINE))
    more = f"{shown - len(listed)} more: forearm {name} --help=all"
    assert text.endswith(more + "\n") if shown > len(listed) else "more:" not in text


def test_the_keys_are_few() -> None:
    assert len(set().union(*map(every_key, COMMANDS))) <= 80


def test_the_command_line_itself_is_light() -> None:
    code = "import sys, forearm.cli; print([m for m in ('torch', 'mujoco', 'hydra', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in (
        "threads",
        f"torch {torch.__version__.split('+')[0]}",
        "mujoco",
        "rendering",
        "ms a 64 x 64 frame",
        "CUDA",
    ):
        assert word in text or (word == "CUDA" and torch.cuda.is_available())


# What is set


def test_settings_are_taken() -> None:
    words = ["env=reach", "planner=mppi", "planner.samples=9", "planners=[zero,mppi]", "seed=3"]
    settings = settings_of("bench", words)
    assert (settings.env.name, settings.planner.name, settings.planner.search.samples) == ("reach", "mppi", 9)
    assert settings.planners == ("zero", "mppi") and settings.seed == 3
    chosen = settings_of("train", ["objective.weight=1", "objective=sigreg"]).objective
    assert (chosen.name, chosen.weight) == ("sigreg", 1.0)


@pytest.mark.parametrize("path", ["7", "a b", "runs/x(1)", "it's", "a=b", "null/x", r"c:\x", "ä,ö", "[x]", "{y}"])
def test_paths_are_taken_as_they_are(path: str) -> None:
    settings = settings_of("demo", [f"out={path}", f"checkpoint={path}"])
    assert settings.out == settings.checkpoint == path
    assert settings_of("demo", ["out=null"]).out is None


# Bad input

GOOD = "episodes=1 out={out}"
BENCH = f"bench obs=state checkpoint={{run}}/train/checkpoint {GOOD}"
TRAIN = "train obs=state data={run}/data out={out} steps=2"
ROUND = "record policy=planner obs=state checkpoint={run}/train/checkpoint workers=1 episodes=2 out={out}"
CEM_CHOICES = (
    "planner.samples, planner.iterations, planner.sigma, planner.replan_above, planner.backend, planner.elites, "
    "planner.horizon, planner.knots, planner.spline, planner.noise_beta, planner.prior, planner.prior_stop, "
    "planner.hold$"
)

BAD: dict[str, tuple[str, str]] = {
    "command": ("recrod", r"unknown command 'recrod'; did you mean 'record'\? .*quickstart, record, data check"),
    "half a command": ("data", "unknown command 'data'. Commands: .*data check"),
    "env": (f"record env=pusch {GOOD}", "env=pusch is unknown; choose one of: reach, push, pickplace, stack, drawer"),
    "env by name": (f"record env.name=pusch {GOOD}", r"env\.name=pusch: there is no key 'env\.name'.* env\.size"),
    "planner": (f"{BENCH} planner=cme", "planner=cme is unknown; choose one of: cem, icem, mppi"),
    "objective": (f"{TRAIN} objective=jepa", "objective=jepa is unknown; choose one of: vicreg, sigreg, ema"),
    "obs": (f"record obs=lidar {GOOD}", "obs=lidar is unknown; choose one of: pixels, state, pixels\\+proprio"),
    "policy": (f"record policy=lazy {GOOD}", "policy=lazy is unknown; choose one of: play, random, expert, planner"),
    "nobody's checkpoint": (f"record checkpoint=x {GOOD}", "checkpoint=x: policy=play needs none; it is"),
    "noise": (f"{ROUND} noise=1.5", r"noise=1\.5: must lie in 0 … 1; it is a share of the steps"),
    "round's env": (f"{ROUND} env=reach", "env=reach: the checkpoint was trained for env=push"),
    "round's checkpoint": (ROUND.replace("{run}/train/checkpoint", "nowhere"), r"=nowhere: no config\.json there"),
    "round's planner": (f"{ROUND} planner.sigma=0", r"planner\.sigma=0.*: must be positive"),
    "round's energy": (f"{ROUND} energy.reduce=max", r"energy\.reduce=max is unknown; choose one of"),
    "round's prior": (f"{ROUND} planner.prior=1", r"planner\.prior: the checkpoint has no action prior"),
    "no room to hold": (f"{ROUND} planner.prior=1 planner.hold=true", r"planner\.hold=true: .*all of 128 cand"),
    "round's steps": (f"{ROUND} execute_steps=0", r"execute_steps=0: must be at least 1"),
    "device": (f"{BENCH} device=tpu", "device=tpu is unknown; choose one of: auto, cpu, cuda"),
    "planners": (f"{BENCH} planners=[cem,foo]", "planners: foo is unknown; choose from: own, cem, .*expert, oracle"),
    "execute_steps": (f"{BENCH} execute_steps=99", r"execute_steps=99: must lie in 1 … \d+, a plan's steps"),
    "metric": (f"{BENCH} energy.metric=fast", r"energy\.metric=fast is unknown; choose one of: slow, plain, object"),
    "distance": (f"{BENCH} energy.distance=l3", r"energy\.distance=l3 is unknown; choose one of: mse, l1, cosine"),
    "ensemble": (f"{BENCH} energy.ensemble=median", r"energy\.ensemble=median is unknown; choose one of: mean, worst"),
    "disagreement": (f"{BENCH} energy.disagreement=-1", r"energy\.disagreement=-1(\.0)?: must not be negative"),
    "one agrees": (f"{BENCH} energy.disagreement=0.5", r"energy\.disagreement=0\.5: the model has one member"),
    "worst of one": (f"{BENCH} energy.ensemble=worst", r"energy\.ensemble=worst: the model has .*leave it mean"),
    "members": (f"{TRAIN} model.members=0", r"model\.members=0: must be at least 1"),
    "energy weight": (f"{BENCH} energy.control=-1", r"energy\.control=-1(\.0)?: must not be negative"),
    "no limit": (f"{BENCH} energy.clip=0", r"energy\.clip=0(\.0)?: must be positive, or inf for no limit"),
    "energy term": (f"{BENCH} energy.effort=1", r"no key 'energy\.effort'.* energy\.distance"),
    "box": (f"{BENCH} energy.keep_out=0,0,0", r"energy\.keep_out=0,0,0: must be a box LOW\.\.HIGH in metres"),
    "no box": (f"{BENCH} energy.keep_out_weight=1", r"energy\.keep_out_weight=1(\.0)?: needs a box"),
    "energies": (f"{BENCH} energies=[l2]", "energies: l2 is neither own nor DISTANCE/REDUCE/METRIC"),
    "an energy's word": (f"{BENCH} energies=[l2/min/slow]", r"energy\.distance=l2 is unknown; choose one of: mse"),
    "budgets": (f"{BENCH} budgets=[64by3]", "budgets: 64by3 is neither own nor SAMPLESxITERATIONS"),
    "deadline": (f"{BENCH} deadline=-1", r"deadline=-1(\.0)?: must not be negative; 0 is none"),
    "backend": (f"{BENCH} planner.backend=fast", r"planner\.backend=fast is unknown; choose one of: auto, eager"),
    "reduce": (f"{BENCH} energy.reduce=max", r"energy\.reduce=max is unknown; choose one of: final, path, min|min"),
    "precision": (f"{TRAIN} precision=fp8", "precision=fp8 is unknown; choose one of: auto, bf16, fp32"),
    "training in integers": (f"{TRAIN} precision=int8", "precision=int8 is unknown; choose one of: auto, bf16, fp32"),
    "imagined precision": (f"{BENCH} precision=fp8", "precision=fp8 is unknown; choose one of: .*fp32, int8"),
    "predictor": (f"{TRAIN} model.predictor=gpt", r"model\.predictor=gpt is unknown; choose one of: residual"),
    "transformer width": (f"{TRAIN} model.predictor=transformer model.predictor_width=100", "must be a multiple of 64"),
    "key": (f"record colour=red {GOOD}", "colour=red: there is no key 'colour'.* policy, episodes"),
    "misspelled key": (f"record episods=3 {GOOD}", r"there is no key 'episods'; did you mean episodes\?"),
    "key of a group": (f"{BENCH} planner.sampels=3", r"no key 'planner\.sampels'; did you mean planner\.samples\?"),
    "key of nothing": (f"{BENCH} foo.bar=3", r"foo\.bar=3: there is no key 'foo\.bar'. There are: .*env, env\.size"),
    "deep key": (f"{BENCH} env.size.x=3", r"env\.size\.x=3: there is no key 'env\.size\.x'; did you mean env\.size"),
    "a group's key of another option": (f"{BENCH} planner=mppi planner.elites=0.1", "'planner.elites'.*effective"),
    "planner setting": (f"{BENCH} planner.temperature=1", f"no key 'planner.temperature'. There are: {CEM_CHOICES}"),
    "objective setting": (f"{TRAIN} objective=ema objective.weight=1", r"weight=1(\.0)?: ema has no such .* decay"),
    "no value": (f"record episodes {GOOD}", "'episodes' is not of the form key=value"),
    "no key": (f"record =3 {GOOD}", "'=3' is not of the form key=value"),
    "Hydra's own": (f"record +x=3 {GOOD}", r"'\+x=3' is not of the form key=value"),
    "Hydra itself": (f"record hydra.run.dir=x {GOOD}", r"there is no key 'hydra\.run\.dir'"),
    "not an int": ("record episodes=many out={out}", "episodes=many: must be a whole number"),
    "half an int": ("record episodes=1.5 out={out}", r"episodes=1\.5: must be a whole number"),
    "two ints": ("record episodes=1,2 out={out}", "episodes=1,2: must be a whole number"),
    "not a float": (f"{TRAIN} learning_rate=fast", "learning_rate=fast: must be a number"),
    "NaN": (f"{TRAIN} learning_rate=nan", "learning_rate=nan: must be a number"),
    "not a bool": (f"{TRAIN} resume=1", "resume=1: must be true or false"),
    "not a list": (f"{BENCH} planners=cem", r"planners=cem: must be a list like \[own,mppi"),
    "an empty list": (f"{BENCH} planner_seeds=[]", r"planner_seeds=\[\]: must be a list like \[0,1,2\]"),
    "a list of words": (f"{BENCH} planner_seeds=[a]", r"planner_seeds=\[a\]: must be a list like \[0,1,2\]"),
    "half a list": (f"{BENCH} planners=[cem", r"planners=\[cem: must be a list like"),
    "episodes": (BENCH.replace("episodes=1", "episodes=0"), "episodes=0: must be at least 1"),
    "record episodes": ("record episodes=0 out={out}", "episodes=0: must be a whole number, at least 2"),
    "length": ("record length=0 out={out}", "length=0: must be a whole number, at least 1"),
    "workers": ("record workers=0 out={out}", "workers=0: must be at least 1"),
    "threads": (f"{BENCH} threads=-1", "threads=-1: must be at least 0"),
    "seed": (f"{BENCH} seed=-1", "seed=-1: must be at least 0"),
    "planner seeds": (f"{BENCH} planner_seeds=[0,-1]", r"planner_seeds=\[0,-1\]: must be at least 0"),
    "size": ("record env.size=20 out={out}", r"env\.size=20: must be a multiple of 16"),
    "no size": ("record env.size=0 out={out}", r"env\.size=0: must be a multiple of 16, at least 16"),
    "samples": (f"{BENCH} planner.samples=1", r"planner\.samples=1: must be at least 2"),
    "elites": (f"{BENCH} planner.elites=3", r"planner\.elites=3(\.0)? must lie in \(0, 1\]"),
    "planner horizon": (f"{BENCH} planner.horizon=0", r"planner\.horizon=0: must be at least 1"),
    "oracle episodes": (f"{BENCH} oracle.episodes=0", r"oracle\.episodes=0: must be at least 1"),
    "steps": (TRAIN.replace("steps=2", "steps=0"), "steps=0: must be at least 1"),
    "rate": (f"{TRAIN} learning_rate=0", r"learning_rate=0\.?0?: must be positive"),
    "grounding": (f"{TRAIN} grounding_arm=-1", r"grounding_arm=-1(\.0)?: must not be negative"),
    "weight": (f"{TRAIN} objective=vicreg objective.weight=-1", r"objective\.weight=-1(\.0)?: must not be negative"),
    "model": (f"{TRAIN} model.latent=0", r"model\.latent=0: must be at least 1"),
    "chunk": (f"{TRAIN} model.chunk=0", r"model\.chunk=0: must be at least 1"),
    "horizon": (f"{TRAIN} horizon=11", r"model\.chunk=2 x horizon=11: must be at most 20, the steps of an episode"),
    "no data": ("train obs=state out={out}", "data: give the folder"),
    "missing data": ("train obs=state data=nowhere out={out}", "nowhere: no such folder; `forearm record out=nowhere`"),
    "data that is not": ("train obs=state data={run}/train out={out}", "is no recording of Forearm's but a training"),
    "data without pixels": ("train obs=pixels data={run}/data out={out}", "obs=pixels: .*without pixels; .*state"),
    "nothing to check": ("data check", "data: give the folder to check"),
    "checking nowhere": ("data check nowhere", "nowhere: no such folder"),
    "missing checkpoint": (f"bench obs=state checkpoint=nowhere {GOOD}", r"checkpoint=nowhere: no config\.json there"),
    "checkpoint for obs": (f"bench checkpoint={{run}}/train/checkpoint {GOOD}", "obs=pixels: .*trained for obs=state"),
    "checkpoint for env": (f"{BENCH} env=reach", "env=reach: the checkpoint was trained for env=push"),
    "missing goals": (f"{BENCH} goals=nowhere", "goals=nowhere: not a goal manifest"),
    "demo planner": (f"demo obs=state checkpoint={{run}}/train/checkpoint {GOOD} planner.sigma=0", "sigma=0.* posit"),
    "nothing to resume": ("train obs=state data={run}/data resume=true", "resume=true: there is no training under"),
    "quickstart planners": ("quickstart obs=state planners=[foo] out={out}", "planners: foo is unknown; choose from"),
    "quickstart members": ("quickstart obs=state energy.ensemble=worst out={out}", r"energy\.ensemble=worst: the mod"),
    "quickstart prior": ("quickstart obs=state energy.prior=1 out={out}", r"energy\.prior=1.*: needs"),
    "quickstart rate": ("quickstart obs=state learning_rate=0 out={out}", "learning_rate=0.*: must be positive"),
    "quickstart horizon": ("quickstart obs=state horizon=99 out={out}", r"x horizon=99: must be at most 50"),
    "quickstart episodes": ("quickstart obs=state record_episodes=1 out={out}", "record_episodes=1: must be at least"),
}  # fmt: skip


def refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ends with 2 and one line on stderr."""
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert re.search(f"^forearm: .*{message}", lines[0]), lines[0]


@pytest.mark.parametrize("kind", BAD)
def test_bad_input(
    kind: str, state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line, message = BAD[kind]
    refused(line.format(run=state_run, out="out").split(), message, capsys)
    assert not [path for path in tmp_path.iterdir() if any(path.iterdir())], "something was written"


@pytest.mark.parametrize(
    ("call", "field", "value", "message"),
    [
        ("evaluate", "energy.ensemble_k", -1, r"energy\.ensemble_k=-1(\.0)?: must not be negative"),
        ("evaluate", "oracle.reduce", "max", r"oracle\.reduce=max is unknown; choose one of: final, path, min|min"),
        ("evaluate", "oracle.iterations", 0, r"oracle\.iterations=0: must be at least 1"),
        ("train", "relax", 2, r"relax=2(\.0)?: must lie in 0 … 1; it is a share"),
        ("train", "ridge", 0, r"ridge=0(\.0)?: must be positive"),
        ("train", "objective.covariance", -1, r"objective\.covariance=-1(\.0)?: must not be negative"),
        ("train", "prior.ahead", "far", r"prior\.ahead=far: must be a number"),
    ],
)
def test_bad_fields_of_python(
    call: str, field: str, value: object, message: str, state_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"^{message}"):
        if call == "train":
            forearm.train(state_run / "data", obs="state", steps=2, out=str(tmp_path / "out"), **{field: value})
        else:
            model, tried = state_run / "train", ("cem", "oracle")
            forearm.evaluate(model, episodes=1, planners=tried, out=tmp_path / "out", progress=False, **{field: value})
    assert not list(tmp_path.iterdir())


# Several runs


def sweep(out: Path, *words: str) -> list[str]:
    always = ("obs=state", "policy=random", "episodes=2", "workers=1", f"out={out}")
    return ["record", "--multirun", *always, *words]


def test_multirun_runs_once_for_each_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "runs ü"
    assert main(sweep(out, "length=5", "seed=3,4")) == 0
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["0", "1"]
    requests = [Dataset.open(out / run).manifest.request for run in "01"]
    assert [(request.seed, request.length) for request in requests] == [(3, 5), (4, 5)]
    told = capsys.readouterr().out
    assert "--- 1: obs=state policy=random episodes=2 workers=1 length=5 seed=4" in told and f"2 runs: {out}" in told


def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(sweep(tmp_path, "length=0,5")) == 2
    assert [path.name for path in tmp_path.iterdir() if (path / "manifest.json").exists()] == ["1"]
    assert "forearm: length=0: must be a whole number, at least 1" in capsys.readouterr().err.splitlines()


def test_several_values_are_for_multirun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in sweep(tmp_path / "out", "seed=3,4") if word != "--multirun"]
    refused(words, "seed=3,4: must be a whole number; --multirun runs once for each of 3 4", capsys)
    refused(sweep(tmp_path / "out", "seed=3"), "--multirun: give a key several values, such as", capsys)
    assert not list(tmp_path.iterdir())


def test_multirun_leaves_hydra_as_the_program_has_it(tmp_path: Path) -> None:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    (tmp_path / "a.yaml").write_text("x: 1")
    before = list(sys.argv)
    with hydra.initialize_config_dir(str(tmp_path), version_base=None):
        assert main(sweep(tmp_path / "out", "length=5", "seed=3,4")) == 0
        assert hydra.compose("a").x == 1
    assert not GlobalHydra.instance().is_initialized() and sys.argv == before


def test_what_is_shipped_is_listed(
    state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checkpoint, "shipped", lambda: tmp_path / "pretrained")
    arguments = ["demo", "env=reach", "obs=state", f"out={tmp_path / 'out'}"]
    message = r"checkpoint=null: none is shipped for env=reach obs=state \(shipped: {}\); train one"
    refused(arguments, message.format("none"), capsys)
    for name in ("push-state", "push-pixels"):
        shutil.copytree(state_run / "train" / "checkpoint", tmp_path / "pretrained" / name)
    refused(arguments, message.format("push-pixels, push-state"), capsys)
    for named in (None, "push-pixels"):
        assert load_model(settings_of("demo", ["obs=state"]), named, torch.device("cpu")).env == "push"
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
@pytest.mark.parametrize("command", ["bench", "demo", "quickstart", "train data={run}/data"])
def test_no_cuda(command: str, state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command.format(run=state_run).split()
    message = "device=cuda: torch finds no CUDA device here; choose cpu"
    refused([*arguments, "obs=state", "device=cuda", f"out={tmp_path / 'out'}"], message, capsys)
    assert not (tmp_path / "out").exists()


def test_pixels_of_another_size(pixel_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", f"checkpoint={pixel_run / 'train' / 'checkpoint'}", "env.size=96", f"out={tmp_path / 'out'}"]
    refused(arguments, r"env\.size=96: the checkpoint was trained for env\.size=64", capsys)


def test_bad_input_as_a_process(tmp_path: Path) -> None:
    done = subprocess.run([*FOREARM, "train", "data=nowhere", "out=out"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


# Damaged files, and folders in use


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copy(state_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(state_run, tmp_path / "copy"))


EPISODE = "episode-000002.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "episode": (lambda f: os.truncate(f / "data" / EPISODE, 700), TRAIN, f"{EPISODE}: .*corrupted.*forearm data check"),
    "a bit of an episode": (
        lambda f: (f / "data" / EPISODE).write_bytes((f / "data" / EPISODE).read_bytes()[:-1] + b"\x99"),
        "data check {run}/data", "",
    ),
    "weights": (
        lambda f: os.truncate(f / "train" / "checkpoint" / "model.safetensors", 700),
        BENCH, r"model\.safetensors: cannot be loaded",
    ),
    "checkpoint's config": (
        lambda f: (f / "train" / "checkpoint" / "config.json").write_text("{"),
        BENCH, r"config\.json: not a checkpoint's configuration",
    ),
    "checkpoint's format": (
        lambda f: (f / "train" / "checkpoint" / "config.json").write_text(json.dumps({"format": 2})),
        BENCH, r"config\.json: format=2; this version reads 1",
    ),
    "goals": (
        lambda f: (f / "goals").write_bytes(b"\xff" * 99),
        BENCH + " goals={run}/goals", "goals=.*: not a goal manifest",
    ),
    "out in use": (lambda f: (f / "out").mkdir() or (f / "out" / "thesis").touch(), BENCH, "out=.*: holds something"),
    "out is a file": (lambda f: (f / "out").touch(), TRAIN, "out=.*: is a file, and nothing is overwritten"),
    "out of training in use": (lambda f: shutil.copytree(f / "train", f / "out"), TRAIN, "out=.*: holds something"),
    "out of another recording": (
        lambda f: shutil.copytree(f / "data", f / "out"),
        "record obs=state episodes=6 length=20 seed=7 out={out}", "recorded with seed=0, asked for is seed=7; nothing",
    ),
    "out of a quickstart in use": (
        lambda f: (f / "out").mkdir() or (f / "out" / "thesis").touch(),
        "quickstart obs=state out={out}", "out=.*: holds something",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named_and_nothing_overwritten(kind: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage, line, message = DAMAGE[kind]
    damage(copy)
    before = content(copy)
    arguments = line.format(run=copy, out=copy / "out").split()
    if kind == "a bit of an episode":
        assert main(arguments) == 2
        assert f"{EPISODE}: checksum mismatch" in capsys.readouterr().out
    else:
        refused(arguments, message, capsys)
    assert content(copy) == before


def test_goals_of_another_env(state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_goals(make("reach", pixels=False), 1, seed=0).save(tmp_path / "goals")
    line = f"{BENCH} goals={tmp_path / 'goals'}".format(run=state_run, out=tmp_path / "out")
    refused(line.split(), "goals=.*: were made for env=reach, not for this env=push", capsys)
    assert not (tmp_path / "out").exists()


def test_a_quickstart_is_gone_on_with_as_it_was_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_settings(settings_of("quickstart", ["obs=state", "workers=3"]), tmp_path)
    before = content(tmp_path)
    refused(["quickstart", "obs=state", "steps=7", f"out={tmp_path}"], "steps=7: .* was begun with steps=", capsys)
    refused(["quickstart", "obs=pixels", f"out={tmp_path}"], "obs=pixels: .* was begun with obs=state", capsys)
    assert content(tmp_path) == before
    quickstart._check_folder(settings_of("quickstart", ["obs=state", "workers=2", f"out={tmp_path}"]), tmp_path)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "report.html").touch()
    refused(["quickstart", "obs=state", f"out={tmp_path}"], "out=.*: is finished", capsys)


def test_ctrl_c_in_what_cannot_be_resumed(
    state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(HoldController, "begin", interrupted)
    monkeypatch.setattr(LatentMPC, "begin", interrupted)
    for command in ("bench planners=[zero]", "demo"):
        out = f"out={tmp_path / command[:4]}"
        checkpoint = f"checkpoint={state_run / 'train' / 'checkpoint'}"
        assert main([*command.split(), "obs=state", "episodes=1", checkpoint, out]) == 130
        assert "forearm: stopped; to start again, run the same command with another out=…" in capsys.readouterr().err


def test_an_interrupt_that_a_library_turns_into_something_else_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from forearm.commands import doctor

    def interrupted(config: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise RecursionError("in mid-import") from None

    monkeypatch.setattr(doctor, "run", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err.strip() == "forearm: stopped; to go on, run the same command again"
    monkeypatch.setattr(doctor, "run", lambda config: [].pop())
    with pytest.raises(IndexError):
        main(["doctor"])


def test_ctrl_c_is_clean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from forearm.commands import doctor

    for reason, line in (("", "to go on, run the same command again"), ("dance", "dance")):

        def interrupted(config: object, reason: str = reason) -> None:
            raise KeyboardInterrupt(*[reason] * bool(reason))

        monkeypatch.setattr(doctor, "run", interrupted)
        assert main(["doctor"]) == 130
        assert capsys.readouterr().err.strip() == f"forearm: stopped; {line}"


def test_bench_planners_measures_gaps_to_known_optima(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gaps"
    assert main(["bench", "planners", "planners=[mppi]", "seeds=4", f"out={out}"]) == 0
    rows = {row["problem"]: row for row in json.loads((out / "results.json").read_text())["rows"]}
    assert list(rows) == ["double_integrator", "stiff_double_integrator", "corridor"]
    row = rows["double_integrator"]
    assert 0 <= row["gap_median"] <= row["gap_worst"] < 0.01
    assert row["evaluations"] == 256 * 12 + 1 and "double_integrator | mppi" in capsys.readouterr().out
    assert (out / "gaps.png").read_bytes().startswith(b"\x89PNG")


def test_help_shows_infinities_as_they_are_typed() -> None:
    shown = dict(re.findall(r"^ +(\S+)=(-?inf) ", command_help(COMMANDS["bench"], everything=True), re.MULTILINE))
    assert shown == {"planner.replan_above": "-inf", "energy.clip": "inf"}
    settings = settings_of("bench", [f"{key}={value}" for key, value in shown.items()])
    assert (settings.planner.search.replan_above, settings.energy.clip) == (-math.inf, math.inf)


def test_help_tells_of_the_presets() -> None:
    def told(command: str) -> str:
        return " ".join(command_help(COMMANDS[command], everything=True).split())

    train = told("train")
    assert "with obs=state, unless set otherwise: model.latent=32" in train and "with env=reach" not in train
    assert "energy.control=0.02" in told("demo")
    assert "with env=pickplace obs=pixels+proprio, unless set otherwise: planner.prior=1.0" in told("demo")
    assert "with env=ogbench/scene, unless set otherwise: length=160" in told("record")
    assert "energy.release=1.0" in told("record") and "with obs=state," not in told("record")
    assert "unless set otherwise" not in told("data check")


def test_presets_give_way_to_what_is_set() -> None:
    state = settings_of("quickstart", ["obs=state", "batch=7"])
    assert (state.model.latent, state.batch, state.objective.weight) == (32, 7, 0.3)
    assert settings_of("quickstart", ["obs=state", "objective=ema"]).objective.weight is None
    assert settings_of("quickstart", []).model.latent == 128
    reach = settings_of("bench", ["env=reach"])
    assert (reach.named[0], reach.energy.control) == ("cem_gradient", 0.02)
    assert settings_of("bench", ["env=reach", "planner=mppi"]).planner.name == "mppi"
    grasps = [["env=pickplace"], ["env=pickplace", "obs=pixels+proprio"], ["env=push", "obs=pixels+proprio"]]
    assert [settings_of("bench", words).planner.prior for words in grasps] == [0.97, 1.0, 0.0]
    assert settings_of("bench", ["energy.control=0.5", "env=reach"]).energy.control == 0.5
    ogbench = ["env=ogbench/cube-single", "obs=state"]
    assert settings_of("bench", ogbench).energy.clip == 0.001  # of the metric that another preset chose
    for word in ("energy.metric=slow", "energy.clip=inf"):
        assert settings_of("bench", [*ogbench, word]).energy.clip == math.inf
    tried = settings_of("bench", [*ogbench, "energies=[own,mse/min/slow]"]).tried["shooting"]
    assert [one.energy.clip for one in tried] == [0.001, math.inf]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("", ""),
        ("env=reach out=/x", "env=reach"),
        ("obs=state objective=ema", "obs=state objective=ema"),
        ("obs=state batch=96", "obs=state batch=96"),
        ("planners=[cem,zero] episodes=5", "episodes=5 planners=[cem,zero]"),
        ("planner=mppi env=reach planner.samples=9", "env=reach planner=mppi planner.samples=9"),
        ("env=reach energy.control=0.0", "env=reach energy.control=0.0"),
        ("batch=9 env=ogbench/scene", "env=ogbench/scene batch=9"),
    ],
)
def test_settings_name_the_command_that_gives_them(words: str, line: str) -> None:
    settings = settings_of("quickstart", words.split())
    assert common.command_line("quickstart", settings) == f"forearm quickstart {line}".strip()
    assert tree(replace(settings_of("quickstart", line.split()), out=settings.out)) == tree(settings)


def test_keys_that_were_renamed_are_pointed_to(capsys: pytest.CaptureFixture[str]) -> None:
    refused(["train", "world=push-state"], "world=push-state: this key is now frozen", capsys)
    refused(["bench", "energy.weights.let_go=1"], "this key is now energy.release", capsys)


@pytest.mark.parametrize("name", ["it's", "a$b"])
def test_a_sweep_goes_where_it_is_told(name: str, tmp_path: Path) -> None:
    assert main(sweep(tmp_path / name, "length=4", "seed=3,4")) == 0
    assert (tmp_path / name / "1" / "manifest.json").is_file()
