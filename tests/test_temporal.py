"""The temporal distance: what is apart in time lies apart, what only flickers does not count. One more metric."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, exit_code
from forearm.cli import main
from forearm.evaluation.energies import METRICS, Added
from forearm.evaluation.results import read_results
from forearm.models.checkpoint import Checkpoint, CheckpointError
from forearm.models.temporal import TemporalArchitecture, TemporalDistance
from forearm.planner.energy import DISTANCES
from forearm.training.heads import draw_ahead
from forearm.training.temporal import TemporalSettings, fit_temporal
from torch import Tensor


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def on_a_ring(angle: Tensor, seed: int) -> Tensor:
    """Embeddings (…, 6): a point on a ring, mixed with more that is new at every step, as an arm's pose nearly is."""
    place = torch.stack((angle.cos(), angle.sin()), -1)
    mixed = torch.linalg.qr(normal(6, 6)).Q
    return torch.cat((place, 2 * normal(*angle.shape, 4, seed=seed)), -1) @ mixed


def test_distances_order_by_time_apart_and_forget_what_flickers() -> None:
    """A ring is walked one way in 120 steps; episodes of 40 see a third of it, and nobody sees both sides."""
    step = 2 * torch.pi / 120
    begun = 2 * torch.pi * torch.rand(200, 1, generator=torch.Generator().manual_seed(1))
    z = on_a_ring(begun + step * torch.arange(41), seed=2)
    settings = TemporalSettings(steps=400, batch=128, width=64, features=8, nearest=3, ahead=8.0)
    head = fit_temporal(z, settings, seed=0)
    assert not any(parameter.requires_grad for parameter in head.parameters())
    start = 2 * torch.pi * torch.rand(500, generator=torch.Generator().manual_seed(3))
    here = on_a_ring(start, seed=4)
    apart = {k: on_a_ring(start + k * step, seed=5) for k in (0, 10, 20, 40, 60)}
    distance = {k: (head(here) - head(there)).square().mean(-1).mean() for k, there in apart.items()}
    assert list(distance) == sorted(distance, key=lambda k: distance[k])
    plain = {k: (here - there).square().mean(-1).mean() for k, there in apart.items()}
    assert distance[0] < 0.15 * distance[60] and plain[0] > 0.6 * plain[60]
    assert head(z.flatten(0, 1)).var(0).mean() == pytest.approx(1.0, abs=1e-4)
    again = fit_temporal(z, replace(settings, steps=2), seed=5)(here)
    assert torch.equal(again, fit_temporal(z, replace(settings, steps=2), seed=5)(here))
    assert not torch.equal(again, fit_temporal(z, replace(settings, steps=2), seed=6)(here))


def test_later_steps_are_of_the_same_episode_and_as_far_ahead_as_asked() -> None:
    episode, start, then = draw_ahead(np.random.default_rng(0), 7, 100, 4000, 8, 20.0)
    assert (episode.min(), episode.max(), start.min(), start.max(), then.max()) == (0, 6, 0, 92, 100)
    ahead = then - start
    assert ahead.min() == 8 and ahead[start < 30].mean() == pytest.approx(20, abs=1.0)
    assert (draw_ahead(np.random.default_rng(0), 1, 5, 100, 3, 3.0)[2] <= 5).all()


def test_metrics_add_up_under_the_mean_square() -> None:
    z, goal = normal(2, 3, 4, 5), normal(2, 5, seed=1)
    maps = [normal(5, 2, seed=2), normal(5, 7, seed=3)]
    one, other = (lambda z, m=m: z @ m for m in maps)
    mse = DISTANCES["mse"]
    both = Added((one, other))
    torch.testing.assert_close(mse(both(z), both(goal)), mse(one(z), one(goal)) + mse(other(z), other(goal)))


def test_a_checkpoint_keeps_its_temporal_distance(state_run: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(state_run / "train" / "checkpoint")
    assert checkpoint.temporal is None
    head = TemporalDistance(TemporalArchitecture(8, features=3, width=16))
    head.fit_normaliser(normal(50, 8))
    head.fit_scale(normal(50, 8))
    replace(checkpoint, temporal=head).save(tmp_path)
    loaded = Checkpoint.load(tmp_path)
    assert loaded.temporal is not None and loaded.temporal.architecture == head.architecture
    z = normal(4, 8, seed=1)
    metric = METRICS["temporal"](loaded.model, loaded.temporal)
    assert metric is not None and torch.equal(metric(z), head(z))
    (tmp_path / "temporal.safetensors").write_bytes(b"\x80")
    with pytest.raises(CheckpointError, match=r"temporal\.safetensors: cannot be loaded"):
        Checkpoint.load(tmp_path)
    (tmp_path / "temporal.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"temporal\.safetensors: cannot be loaded"):
        Checkpoint.load(tmp_path)


def test_train_learns_it_also_later_and_bench_compares_by_it(
    tmp_path: Path, state_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = state_run / "data", tmp_path / "train"
    small = ["temporal.batch=8", "temporal.width=16", "temporal.features=3"]
    train = ["train", f"data={data}", "obs=state", f"out={out}", *TINY, "steps=4", *small]
    assert exit_code(train) == 0
    checkpoint = out / "checkpoint"
    before = (checkpoint / "model.safetensors").read_bytes()
    assert not (checkpoint / "temporal.safetensors").exists()
    energies = "energies=[own,mse/min/temporal,mse/min/slow+temporal]"
    bench = ["bench", "obs=state", f"checkpoint={checkpoint}", "episodes=2", "threads=1", "planners=[cem]", energies]
    bench += ["planner.samples=8", "planner.iterations=1", "planner.horizon=2", "planner_seeds=[0]", "video_episodes=0"]
    capsys.readouterr()
    assert main([*bench, f"out={tmp_path / 'no'}"]) == 2
    assert "no temporal distance; `forearm train temporal.steps=…` learns one" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()

    later = [*train, "resume=true", "temporal.steps=3"]
    assert exit_code(later) == 0
    weights = (checkpoint / "temporal.safetensors").read_bytes()
    assert (checkpoint / "model.safetensors").read_bytes() == before
    assert exit_code(later) == 0
    assert (checkpoint / "temporal.safetensors").read_bytes() == weights, "one that is there stays"
    assert main([*bench, f"out={tmp_path / 'bench'}"]) == 0
    rows = read_results(tmp_path / "bench" / "results.json").rows
    assert [row.energy for row in rows] == ["mse, min", "mse, min, temporal", "mse, min, slow+temporal"]


def test_stopped_while_it_learns_it_is_gone_on_with(
    tmp_path: Path, state_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from forearm.training import temporal

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "train"
    train = ["train", f"data={state_run / 'data'}", "obs=state", f"out={out}", *TINY, "steps=2", "temporal.steps=2"]
    with monkeypatch.context() as patch:
        patch.setattr(temporal, "fit", stopped)
        assert exit_code([*train, "temporal.batch=8"]) == 130
    assert f"to go on, forearm train resume=true out={out}" in capsys.readouterr().err
    assert Checkpoint.load(out / "checkpoint").temporal is None
    assert exit_code([*train, "temporal.batch=8", "resume=true"]) == 0
    assert Checkpoint.load(out / "checkpoint").temporal is not None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("temporal.steps=-1", "temporal.steps=-1: must be at least 0"),
        ("temporal.batch=1", "temporal.batch=1: must be at least 2"),
        ("temporal.features=0", "temporal.features=0: must be at least 1"),
        ("temporal.nearest=0", "temporal.nearest=0: must be at least 1"),
        ("temporal.ahead=7.5", "temporal.ahead=7.5: must be at least nearest=8"),
        (
            "temporal.steps=3 temporal.nearest=21 temporal.ahead=30.0",
            "temporal.nearest=21: must be at most 20, the steps of an episode",
        ),
    ],
)
def test_what_cannot_be_is_told_before_training(
    setting: str, message: str, state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", f"data={state_run / 'data'}", "obs=state", f"out={tmp_path / 'out'}", *TINY, *setting.split()]
    assert exit_code(train) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_quickstart_tells_at_once_that_nothing_will_be_learned_to_compare_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quickstart", "obs=state", "energy.metric=slow+temporal", f"out={tmp_path / 'out'}"]) == 2
    assert "energy.metric=slow+temporal: needs temporal.steps" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
