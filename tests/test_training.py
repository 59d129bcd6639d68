"""Objectives against known values, validation in words, and training that goes on exactly where it was stopped."""

import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FOREARM, TINY, exit_code
from forearm.cli import main
from forearm.episodes.dataset import Recordings
from forearm.models.checkpoint import Checkpoint
from forearm.models.precision import cpu_has_bf16, use_bf16
from forearm.models.readout import Readout
from forearm.models.world_model import Architecture, WorldModel
from forearm.training.grounding import Grounding
from forearm.training.heads import Recorded
from forearm.training.loop import Trainer, TrainingSettings, read_log
from forearm.training.objectives import EMA, OBJECTIVES, ObjectiveError, SIGReg, VICReg, make_objective
from forearm.training.readout import ReadoutSettings, imagine, refine_readout
from forearm.training.validation import COLLAPSED, Validation, effective_rank, validate
from safetensors.torch import load_file
from torch import Tensor


def noise(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=noise(7))


def tiny_model() -> WorldModel:
    torch.manual_seed(0)
    return WorldModel(Architecture({"state": [4]}, {"state": "mlp"}, action_size=2, latent=6, features=8))


# Objectives

NOT_GAUSSIAN: dict[str, Callable[[Tensor], Tensor]] = {
    "collapsed": torch.zeros_like,
    "shifted": lambda z: z + 1.0,
    "wide": lambda z: 2.0 * z,
    "narrow": lambda z: 0.5 * z,
    "rank 1": lambda z: z[:, :1].expand_as(z),
    "uniform": lambda z: 3**0.5 * (2 * torch.special.ndtr(z) - 1) * torch.tensor([1.0] + [0.0] * 15),
}


@pytest.mark.parametrize("kind", NOT_GAUSSIAN)
def test_sigreg_is_small_for_a_standard_normal_alone(kind: str) -> None:
    z, sigreg = normal(2048, 16), SIGReg()
    reference = sigreg.penalty(z, noise())
    assert 0 <= reference < 2.0  # a sum over samples: this is what chance leaves, whatever their number
    assert abs(sigreg.penalty(normal(8192, 16), noise()) - reference) < 1.0
    assert sigreg.penalty(NOT_GAUSSIAN[kind](z), noise()) > 20 * reference


def test_sigreg_is_the_weighted_distance_of_characteristic_functions() -> None:
    sigreg = SIGReg(slices=1, knots=2, extent=2.0)
    z = torch.full((3, 1), 0.7)  # in one dimension the direction is 1 or -1, and the value the same
    t = np.array([1.0, 2.0])
    gaussian = np.exp(-(t**2) / 2)
    error = (np.cos(0.7 * t) - gaussian) ** 2 + np.sin(0.7 * t) ** 2
    assert sigreg.penalty(z, noise()).item() == pytest.approx(3 * np.mean(error * gaussian), rel=1e-5)


def test_vicreg_is_zero_for_what_is_white() -> None:
    z = normal(400, 8)
    z = z - z.mean(0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    vicreg = VICReg()
    assert vicreg.penalty(white, noise()).item() == pytest.approx(0.0, abs=1e-4)
    assert vicreg.penalty(3 * white, noise()).item() == pytest.approx(0.0, abs=1e-4)  # wide is as good
    assert vicreg.penalty(white.unflatten(0, (100, 4)), noise()) == vicreg.penalty(white, noise())
    assert vicreg.penalty(0.5 * white, noise()).item() == pytest.approx(0.5, abs=1e-3)
    assert vicreg.penalty(torch.zeros(50, 8), noise()).item() == pytest.approx(0.99, abs=1e-3)
    same = white[:, :1].expand(-1, 8)  # covariance 1 everywhere: 8 x 7 pairs over 8 dimensions
    assert vicreg.penalty(same, noise()).item() == pytest.approx(vicreg.covariance * 7, rel=1e-3)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_penalties_can_be_descended(name: str) -> None:
    z = (0.1 * normal(64, 5, 6)).requires_grad_()
    objective = make_objective(name)
    objective.begin(tiny_model())
    penalty = objective.penalty(z, noise())
    assert penalty.shape == () and penalty.isfinite()
    assert torch.equal(penalty, objective.penalty(z, noise()))
    if name != "ema":
        (gradient,) = torch.autograd.grad(penalty, z)
        assert objective.penalty((z - 1e-2 * gradient / gradient.norm()).detach(), noise()) < penalty


def test_ema_follows_exactly() -> None:
    model, ema = tiny_model(), EMA(decay=0.9)
    model.fit_normaliser({"state": normal(100, 4) + 5})
    ema.begin(model)
    slow = {name: value.clone() for name, value in model.named_parameters()}
    observation, z = {"state": normal(10, 4)}, torch.zeros(5, 2, 6)
    torch.testing.assert_close(ema.targets(observation, z), model.encode(observation).view(5, 2, 6))
    for _ in range(3):
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.add_(torch.randn_like(value))
                slow[name] = 0.9 * slow[name] + 0.1 * value
        ema.after_step(model)
    for name, value in ema.teacher.named_parameters():
        torch.testing.assert_close(value, slow[name])
    assert not ema.targets(observation, z).requires_grad
    assert ema.state_dict().keys() == {f"teacher.{name}" for name in model.state_dict()}


def test_a_bad_objective_is_named() -> None:
    with pytest.raises(ObjectiveError, match="objective=jepa is unknown; choose one of: vicreg, sigreg, ema"):
        make_objective("jepa")
    with pytest.raises(ObjectiveError, match=r"objective\.beta=1: vicreg has no such .*: weight, covariance"):
        make_objective("vicreg", beta=1)
    with pytest.raises(ObjectiveError, match=r"objective\.weight=-1: must not be negative"):
        make_objective("sigreg", weight=-1)
    with pytest.raises(ObjectiveError, match=r"objective\.decay=2: must lie in \[0, 1\]"):
        make_objective("ema", decay=2)


# Validation


def test_effective_rank_of_known_spectra() -> None:
    z = normal(4000, 8)
    z = z - z.mean(0)
    white = z @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(z.T))).T
    assert effective_rank(white) == pytest.approx(8, rel=1e-3)
    assert effective_rank(white * torch.tensor([1.0] * 3 + [0.0] * 5)) == pytest.approx(3, rel=1e-3)
    assert effective_rank(9 * white[:, :1].expand(-1, 8)) == pytest.approx(1, abs=1e-3)
    assert effective_rank(torch.ones(50, 8)) == pytest.approx(1, abs=1e-3)
    share = np.array([0.75, 0.25])
    two = effective_rank(white[:, :2] * torch.tensor([3**0.5, 1.0]))
    assert two == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-3)


@pytest.mark.parametrize(
    ("of", "within"), [(lambda z: z @ normal(6, 3) + 0.3, 0.02), (lambda z: torch.sin(z[:, :3]) + z[:, 3:].abs(), 0.25)]
)
def test_readout_reads_positions(of: Callable[[Tensor], Tensor], within: float) -> None:
    z = normal(4000, 6)
    read = Readout(6, 3)
    read.fit(z[:3000], of(z[:3000]))
    error = (read(z[3000:]) - of(z[3000:])).norm(dim=-1).median()
    assert error < within * of(z).std()


@pytest.mark.parametrize(
    ("rank", "imagined", "words"),
    [
        (9.0, 1.0, "no collapse .*beats 'nothing moves', 4.0 cm"),
        (9.0, 5.0, "no collapse .*does NOT beat 'nothing moves'"),
        (COLLAPSED - 0.1, 1.0, r"COLLAPSED .*raise objective\.weight"),
    ],
)
def test_validation_in_words(rank: float, imagined: float, words: str) -> None:
    assert re.search(words, Validation(0.1, rank, 0.5, imagined, 4.0).words)


class PerfectModel(WorldModel):
    """Sees the state as it is and knows what comes: the sum of the actions."""

    knows = 1.0

    def encode(self, observation: Any) -> Tensor:
        return observation["state"]

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        moves = actions.unflatten(2, (-1, self.chunk)).sum(3).cumsum(2)
        return z[:, None, None] + self.knows * torch.cat([moves, torch.zeros_like(moves)[..., :1]], -1)


class Dreamer(PerfectModel):
    """What it imagines lies a metre further on than it should, and can be told from what is seen."""

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        return super().rollout(z, actions) + torch.tensor([1.0, 0.0, 2.0])


def test_a_refined_readout_reads_off_what_is_imagined_where_things_then_are() -> None:
    start, actions = normal(301, 1, 2)[1:], 0.2 * normal(300, 12, 2)
    z = torch.cat((torch.cat((start, start + actions.cumsum(1)), 1), 0.5 * normal(300, 13, 1)), -1)
    positions = torch.sin(z[..., :2])

    def refined() -> tuple[Readout, list[float], list[float], int]:
        torch.manual_seed(0)
        model = Dreamer(Architecture({"state": [3]}, {"state": "mlp"}, 2, 1, 3, 8, readout=2, readout_width=64))
        readout = model.readout
        assert readout is not None
        readout.fit(z.flatten(0, 1), positions.flatten(0, 1))
        dreamt, episode, step = imagine(model, z, actions, 3, 500, np.random.default_rng(5))
        torch.testing.assert_close(dreamt[..., :2], z[episode, step, :2] + torch.tensor([1.0, 0.0]))

        def errors() -> list[float]:
            pairs = (z, positions), (dreamt, positions[episode, step])
            with torch.no_grad():
                return [float((readout(seen) - there).norm(dim=-1).mean()) for seen, there in pairs]

        told: list[int] = []
        before = errors()
        refine_readout(
            model, Recorded(z, positions, actions), ReadoutSettings(steps=600, horizon=3), 0, advance=told.append
        )
        return readout, before, errors(), sum(told)

    readout, before, after, steps = refined()
    assert steps == 600 and not any(p.requires_grad for p in readout.parameters())
    assert before[1] > 0.4 and after[1] < 0.1 and after[0] < 0.1, (before, after)
    again = refined()[0].state_dict()
    assert all(torch.equal(value, again[name]) for name, value in readout.state_dict().items())


def pushed_windows(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Windows of three model steps in which the state moves by the sum of the actions."""
    action = rng.uniform(-0.05, 0.05, (count, 6, 2)).astype(np.float32)
    moves = action.reshape(count, 3, 2, 2).sum(2).cumsum(1)
    start = rng.normal(0, 0.2, (count, 1, 3)).astype(np.float32)
    still = np.zeros((count, 3, 1), np.float32)
    state = np.concatenate([start, start + np.concatenate([moves, still], -1)], 1)
    return {"action": action, "state": state, "tracked": state}


@pytest.mark.parametrize(("knows", "verdict"), [(1.0, " beats"), (-1.0, "does NOT beat")])
def test_validation_measures_centimetres(knows: float, verdict: str) -> None:
    model = PerfectModel(Architecture({"state": [3]}, {"state": "mlp"}, action_size=2, chunk=2))
    model.knows = knows
    rng = np.random.default_rng(0)

    held_out = pushed_windows(300, rng)
    found = validate(model, pushed_windows(800, rng), held_out, torch.device("cpu"), tolerance=0.02)
    moved = 100 * np.linalg.norm(held_out["state"][:, -1] - held_out["state"][:, 0], axis=-1)
    assert found.still_cm == pytest.approx(float(np.median(moved[moved > 1])), rel=0.02)
    assert found.probe_cm < 0.2 and effective_rank(torch.from_numpy(held_out["state"]).flatten(0, 1)) > 2
    assert (found.imagined_cm < 0.3) == (knows == 1.0)
    assert verdict in found.words
    assert model.training


class CollapsedModel(PerfectModel):
    """Sees one number alone."""

    def encode(self, observation: Any) -> Tensor:
        return observation["state"] * torch.tensor([1.0, 0.0, 0.0])


def test_a_collapsed_latent_is_said_so() -> None:
    rng = np.random.default_rng(0)
    model = CollapsedModel(Architecture({"state": [3]}, {"state": "mlp"}, action_size=2, chunk=2))
    found = validate(model, pushed_windows(800, rng), pushed_windows(300, rng), torch.device("cpu"))
    assert found.effective_rank == pytest.approx(1, abs=1e-3) and "COLLAPSED" in found.words


def test_training_tells_of_a_collapse(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forearm.training.validation.COLLAPSED", math.inf)
    assert main(command(state_run / "data", tmp_path / "run", "steps=2", "validate_every=2")) == 0
    assert "COLLAPSED" in capsys.readouterr().out


# Settings


def test_learning_rate_warms_up_and_comes_down() -> None:
    settings = TrainingSettings(steps=1000, warmup=10, learning_rate=0.1)
    rates = [settings.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[9] == pytest.approx(0.1, rel=1e-3)
    assert all(a <= b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.002, rel=1e-2)


def test_bf16_is_used_where_it_pays() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert use_bf16("bf16", cpu, False) and not use_bf16("fp32", cuda)
    assert use_bf16("auto", cuda, False) and not use_bf16("auto", cpu, False)
    assert use_bf16("auto", cpu) == cpu_has_bf16()


@pytest.mark.parametrize("change", [{"steps": 0}, {"seed": -1}, {"learning_rate": 0.0}, {"precision": "fp8"}])
def test_settings_that_cannot_be_are_named(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}={next(iter(change.values()))}"):
        TrainingSettings(**change)


# Training, from state


def command(data: Path, out: Path, *settings: str) -> list[str]:
    return ["train", f"data={data}", "obs=state", f"out={out}", *TINY, *settings]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_training_learns(state_run: Path, tmp_path: Path, objective: str) -> None:
    settings = (f"objective={objective}", "steps=300", "log_every=50", "validate_every=150", "learning_rate=0.01")
    out = tmp_path / "run"
    assert exit_code(command(state_run / "data", out, *settings)) == 0
    log = read_log(out)
    assert [line["step"] for line in log] == [50, 100, 150, 150, 200, 250, 300, 300]
    losses = [line["prediction_loss"] for line in log if "prediction_loss" in line]
    assert losses[-1] < losses[0]
    assert {"checkpoint", "config.yaml", "log.jsonl", "loss.png", "snapshot.safetensors"} <= {
        p.name for p in out.iterdir()
    }
    checkpoint = Checkpoint.load(out / "checkpoint")
    assert (checkpoint.env, checkpoint.obs, checkpoint.about["steps"]) == ("push", "state", 300)
    encoder: Any = checkpoint.model.encoders["state"]
    assert encoder.std.max() > 0.05 and encoder.mean.abs().max() > 0.1, "the normaliser is that of the data"
    if objective == "ema":
        teacher = load_file(out / "snapshot.safetensors")
        assert torch.equal(teacher["objective/teacher.encoders.state.mean"], encoder.mean)


def test_grounding_makes_embeddings_tell_where_things_are() -> None:
    """Four numbers of ten: which, is learned."""
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(64, 20, 10, generator=generator)
    tracked = 0.5 + 0.1 * seen[..., :3]
    errors = []
    for learns in (False, True):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = torch.nn.Linear(10, 4).requires_grad_(learns)
        grounding = Grounding(4, tracked.numpy())
        assert grounding(encoder(seen), tracked).mean().item() == pytest.approx(1.0, abs=1e-3)  # positions' variance
        optimizer = torch.optim.Adam([*grounding.parameters(), *(encoder.parameters() if learns else ())], 0.03)
        for _ in range(300):
            optimizer.zero_grad()
            grounding(encoder(seen), tracked).mean().backward()
            optimizer.step()
        errors.append(grounding(encoder(seen), tracked).mean().item())
    assert errors[0] > 0.3 and errors[1] < 1e-3


def test_grounding_arm_makes_imagined_embeddings_tell_where_the_arm_is(state_run: Path, tmp_path: Path) -> None:
    """By a linear map, of the frames that were learned from and of what is imagined a model step after each."""
    columns = Recordings.open([state_run / "data"]).load("train", ["state", "proprio", "action"])
    state, arm, action = (torch.from_numpy(columns[name]) for name in ("state", "proprio", "action"))
    wide = ("model.predictor_width=32", "model.encoder_width=32", "model.features=16")
    errors = []
    for weight in (0, 3):
        out = tmp_path / str(weight)
        settings = ("steps=250", "batch=32", "learning_rate=0.01", *wide, f"grounding_arm={weight}")
        assert exit_code(command(state_run / "data", out, *settings)) == 0
        model = Checkpoint.load(out / "checkpoint").model
        chunks = action.unfold(1, model.chunk, 1).mT  # of each step and those after it
        with torch.no_grad():
            z = model.encode({"state": state})
            imagined = model.rollout(z[:, : chunks.shape[1]].flatten(0, 1), chunks.flatten(0, 1)[:, None])[:, 0, 0]
        truth = (arm - arm.mean((0, 1))) / arm.std((0, 1)).clamp_min(1e-3)
        know, ask = (torch.cat((x, torch.ones_like(x[:, :1])), 1) for x in (z.flatten(0, 1), imagined))
        fit = torch.linalg.lstsq(know, truth.flatten(0, 1)).solution
        errors.append(float((ask @ fit - truth[:, model.chunk :].flatten(0, 1)).square().mean()))
    assert errors[1] < 0.5 * errors[0]


# Interruptions

LONG = (
    *("steps=300", "validate_every=3", "save_every=7", "seed=5"),
    *("grounding=0.5", "grounding_arm=0.5"),
)


@pytest.fixture(scope="module", params=["sigreg", "ema"])
def unbroken(request: pytest.FixtureRequest, state_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / request.param
    assert main(command(state_run / "data", out, f"objective={request.param}", *LONG)) == 0
    return out


def start(arguments: list[str]) -> subprocess.Popen[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [*FOREARM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd="/"
    )


def wait_for_lines(log: Path, more: int, process: subprocess.Popen[str]) -> None:
    """Until the log has `more` lines than a resumed run begins with."""

    def count() -> int:
        return log.read_bytes().count(b"\n") if log.exists() else 0

    before, deadline = count(), time.monotonic() + 30
    while count() < before + more and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def same(one: Path, other: Path) -> None:
    assert not list(other.rglob(".*")), "half-written files were left behind"
    assert (one / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()
    for name in ("snapshot.safetensors", "checkpoint/model.safetensors"):
        expected = load_file(one / name)
        found = load_file(other / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value), f"{name}: {key}"
    assert (one / "checkpoint" / "config.json").read_bytes() == (other / "checkpoint" / "config.json").read_bytes()


def test_sigkill_at_any_step_then_resume(state_run: Path, tmp_path: Path, unbroken: Path) -> None:
    rng, out, kills = random.Random(unbroken.name), tmp_path / "run", {"sigreg": 3, "ema": 1}[unbroken.name]
    arguments = command(state_run / "data", out, f"objective={unbroken.name}", *LONG)
    killed = 0
    for _ in range(kills):
        process = start([*arguments, f"resume={'true' if killed else 'false'}"])
        wait_for_lines(out / "log.jsonl", rng.randint(1, 25), process)
        time.sleep(rng.uniform(0, 0.02))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
    assert killed == kills and len(read_log_whole(out)) < len(read_log(unbroken))
    assert main([*arguments, "resume=true"]) == 0
    same(unbroken, out)


def read_log_whole(out: Path) -> list[dict[str, float]]:
    """The log without a torn last line."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines(True) if line.endswith("\n")]


@pytest.mark.parametrize("unbroken", ["sigreg"], indirect=True)
def test_ctrl_c_saves_and_says_how_to_go_on(state_run: Path, tmp_path: Path, unbroken: Path) -> None:
    out = tmp_path / "run"
    # Nothing but Ctrl-C saves here, so it must have happened at the very step that is resumed.
    arguments = command(state_run / "data", out, f"objective={unbroken.name}", *LONG)
    process = start(arguments)
    wait_for_lines(out / "log.jsonl", 10, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"forearm: stopped; to go on, forearm train resume=true out={out} (saved at step ")
    step = int(last.split("step ")[1].rstrip(")"))
    assert 25 <= step < 300
    assert Checkpoint.load(out / "checkpoint").about["steps"] == step
    assert main([*arguments, "resume=true"]) == 0
    same(unbroken, out)


@pytest.mark.parametrize("unbroken", ["sigreg"], indirect=True)
def test_resuming_what_is_finished_changes_nothing(state_run: Path, unbroken: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(unbroken, tmp_path / "run"))
    arguments = command(state_run / "data", out, f"objective={unbroken.name}", *LONG)
    assert main([*arguments, "resume=true"]) == 0
    same(unbroken, out)


def test_training_from_pixels_goes_on_exactly(pixel_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, every = tmp_path / "run", Trainer.run
    settings = ("obs=pixels", "steps=6", "validate_every=4", "save_every=3")
    arguments = command(pixel_run / "data", out, *settings)

    def killed(trainer: Trainer, *_: Any) -> Iterator[Any]:
        for validation in every(trainer):
            if trainer.step == 5:  # 4 and 5 are done again
                raise KeyboardInterrupt
            yield validation

    monkeypatch.setattr(Trainer, "run", killed)
    assert exit_code([*arguments, "log_every=2"]) == 130
    monkeypatch.undo()
    assert main([*arguments, "resume=true"]) == 0
    same(pixel_run / "train", out)


@pytest.mark.parametrize(
    "change",
    [
        *("steps=5", "seed=6", "batch=16", "model.chunk=3", "model.latent=9", "horizon=3"),
        *("objective.weight=0.4", "grounding=0.1", "grounding_arm=0.1"),
    ],
)
def test_another_setting_is_refused(
    state_run: Path, tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(state_run / "train", tmp_path / "run"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    arguments = command(state_run / "data", out, "steps=6", "validate_every=4", "save_every=3")
    assert main([*arguments, change, "resume=true"]) == 2
    key, value = change.split("=")
    assert f"forearm: {key}={value}: this training was begun with {key}=" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["missing", "empty", "damaged"])
def test_nothing_to_resume_is_refused(
    state_run: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    if kind != "missing":
        out.mkdir()
    if kind == "damaged":
        (out / "snapshot.safetensors").write_bytes(b"\xff" * 99)
    assert main([*command(state_run / "data", out), "resume=true"]) == 2
    message = "snapshot.safetensors: not a snapshot" if kind == "damaged" else "resume=true: there is no snapshot"
    assert message in capsys.readouterr().err
    assert not out.exists() or len(list(out.iterdir())) == (kind == "damaged")


def test_divergence_is_said_so(state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(state_run / "data", tmp_path / "run", "learning_rate=1e30", "steps=40", "objective=vicreg")
    assert main(arguments) == 2
    assert "learning_rate=1e+30: the loss diverged by step" in capsys.readouterr().err
