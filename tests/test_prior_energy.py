"""How unlikely a plan is under the action prior: against known data, by hand, and in planning."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forearm import models
from forearm.cli import main
from forearm.evaluation.energies import Unlikely
from forearm.evaluation.results import read_results
from forearm.models.checkpoint import Checkpoint
from forearm.models.prior import ActionPrior, PriorArchitecture
from forearm.models.world_model import WorldModel
from forearm.planner import make_planner
from forearm.training.heads import Recorded
from forearm.training.prior import PriorSettings, train_prior
from test_members import Known, normal, small
from test_prior import SPACE, world_and_prior
from torch import Tensor


@pytest.fixture(scope="module")
def learned() -> ActionPrior:
    """Of two ways round something in the way, x = +-0.7, to a goal on either side, y = +-0.5, all with noise of 0.1."""
    torch.manual_seed(0)
    prior = ActionPrior(PriorArchitecture(2, 1, 2, segment=1, width=64, depth=2))
    optimizer = torch.optim.Adam(prior.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(800):
        optimizer.zero_grad()
        prior.loss(*ways(256, generator), generator).backward()
        optimizer.step()
    prior.architecture = replace(
        prior.architecture, typical=prior.denoising_error(*ways(2000, generator)).mean().item()
    )
    return prior.eval().requires_grad_(False)


def ways(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    side = torch.rand(2, count, generator=generator).sub(0.5).sign()
    actions = torch.stack((0.7 * side[0], 0.5 * side[1]), -1) + 0.1 * torch.randn(count, 2, generator=generator)
    return torch.zeros(count, 2), torch.zeros(count, 1), side[1, :, None], actions[:, None]


def test_what_was_done_is_likelier_than_what_was_not(learned: ActionPrior) -> None:
    z, now, goal, actions = ways(400, torch.Generator().manual_seed(1))

    def unlikely(actions: Tensor) -> Tensor:
        return learned.denoising_error(z, now, goal, actions)

    done = unlikely(actions)
    through = torch.stack((torch.zeros(400), 0.5 * goal[:, 0]), -1)[:, None]
    for other in (through, actions * torch.tensor([1.0, -1.0]), 2 * torch.rand(400, 1, 2) - 1):
        assert unlikely(other).mean() > 1.25 * done.mean(), "between the ways, to the other goal, anywhere"
    quiet = torch.stack((0.7 * actions[..., 0].sign(), 0.5 * actions[..., 1].sign()), -1)
    assert unlikely(quiet).mean() < done.mean(), "the mode is the likeliest"


def test_an_action_is_judged_alone_as_among_others(learned: ActionPrior) -> None:
    z, now, goal, actions = ways(5, torch.Generator().manual_seed(2))
    together = learned.denoising_error(z, now, goal, actions)
    torch.testing.assert_close(learned.denoising_error(z[2:3], now[2:3], goal[2:3], actions[2:3])[0], together[2])
    assert "probe" not in learned.state_dict(), "checkpoints are as they were"


def test_one_is_what_was_done() -> None:
    """On held-out examples of an episode a prior has learned from."""
    model = small(1)
    z, actions = normal(60, 21, 4), 0.3 * normal(60, 20, 2, seed=1)
    recorded = Recorded(z, torch.zeros(60, 21, 3), actions)
    settings = PriorSettings(steps=60, batch=64, segment=4, width=32, depth=1, ahead=8.0)
    prior = train_prior(model, recorded, settings, seed=0, precision="fp32")
    goal, start = z[:, 12], z[:, 0]
    assert model.readout is not None
    done = Unlikely(model, prior, model.readout, start, goal, model.chunk)(actions[:, None, :4])
    assert done.mean().item() == pytest.approx(1.0, abs=0.15)


def known() -> tuple[WorldModel, ActionPrior]:
    model, prior = world_and_prior()
    prior.architecture = replace(prior.architecture, typical=0.8)
    return model, prior


def test_each_segment_is_judged_where_the_model_imagines_it_to_begin() -> None:
    model, prior = known()  # segments of six steps, three model steps
    assert model.readout is not None
    z, goal, actions = normal(2, 4, seed=2), normal(2, 4, seed=3), normal(2, 5, 14, 2, seed=4).clamp(-1, 1)
    energy = Unlikely(model, prior, model.readout, z, goal, model.chunk)
    found = energy(actions)
    later = model.rollout(z, actions)[:, :, 2]
    expected = torch.zeros(2, 5)
    for n in range(5):
        for start, first in ((z, 0), (later[:, n], 6)):
            segment = actions[:, n, first : first + 6]
            error = prior.denoising_error(start, model.readout(start), model.readout(goal), segment)
            expected[:, n] += 0.5 * error / 0.8
    torch.testing.assert_close(found, expected)  # of 14 steps the last two are no segment
    torch.testing.assert_close(energy(actions[:, :, :12]), found)
    alone = Unlikely(model, prior, model.readout, z[1:], goal[1:], model.chunk)
    torch.testing.assert_close(alone(actions[1:]), found[1:])
    short = Unlikely(model, prior, model.readout, z, goal, model.chunk)(actions[:, :, :6])
    assert short.shape == (2, 5) and not torch.allclose(short, found)


def test_of_several_futures_it_is_the_mean() -> None:
    model, prior = small(3), known()[1]
    assert model.readout is not None
    z, goal, actions = normal(2, 4, seed=2), normal(2, 4, seed=3), normal(2, 5, 12, 2, seed=4).clamp(-1, 1)
    rest = prior, model.readout, z, goal, model.chunk
    each = [Unlikely(Known(future), *rest)(actions) for future in model.rollout(z, actions)]
    torch.testing.assert_close(Unlikely(model, *rest)(actions), torch.stack(each).mean(0))
    assert not torch.allclose(each[0], each[1])


@pytest.mark.parametrize("name", ["cem", "gradient"])
def test_planners_find_what_is_likely(name: str, learned: ActionPrior) -> None:
    """Of the two ways round, one, and on the side of the goal."""
    z = torch.zeros(2, 2)

    class Still:
        def encode(self, observation: object) -> Tensor:
            raise AssertionError("nothing is encoded in a plan")

        def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
            return z[:, None, None].expand(*actions.shape[:3], -1)

    goal = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    energy = Unlikely(Still(), learned, lambda z: z[..., :1], z, goal, chunk=1)
    space = replace(SPACE, steps=1, chunk=1, knots=1)
    plan = make_planner(name, space, samples=16, iterations=12).plan(energy, make_planner(name, space).init(2))
    found = plan.actions[:, 0]
    assert plan.energy.isfinite().all()
    torch.testing.assert_close(found[:, 1], torch.tensor([0.5, -0.5]), atol=0.2, rtol=0)
    torch.testing.assert_close(found[:, 0].abs(), torch.tensor([0.7, 0.7]), atol=0.25, rtol=0)


# On the command line

SHORT = ("episodes=1", "planner_seeds=[0]", "video_episodes=0", "threads=1", "execute_steps=4")
SMALL = ("planner.samples=4", "planner.horizon=3")


def test_bench_plans_for_what_is_likely(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench = ["bench", "env=pickplace", "planners=[shooting]", *SHORT, *SMALL, "energy.prior=0.01"]
    assert main([*bench, "planner.prior=0", f"out={tmp_path / 'out'}"]) == 0
    (row,) = read_results(tmp_path / "out" / "results.json").rows
    assert (row.planner, row.energy) == ("shooting", "mse, min, object + 1 release + 0.01 prior")
    capsys.readouterr()
    assert main([*bench, "planner.horizon=2", f"out={tmp_path / 'no'}"]) == 2
    assert "energy.prior=0.01: plans of 4 steps are too short to judge" in capsys.readouterr().err


def test_a_prior_that_does_not_know_what_is_usual_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped = Checkpoint.load(Path(models.__file__).parent / "pretrained" / "pickplace-state")
    assert shipped.prior is not None and shipped.prior.architecture.typical > 0
    shipped.prior.architecture = replace(shipped.prior.architecture, typical=0.0)
    shipped.save(tmp_path)
    assert main(["bench", "env=pickplace", f"checkpoint={tmp_path}", *SHORT, "energy.prior=1"]) == 2
    assert "energy.prior=1.0: the checkpoint's prior does not know what is usual" in capsys.readouterr().err


def test_without_a_prior_nothing_is_likely(state_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Checkpoint.load(state_run / "train" / "checkpoint").prior is None
    bench = ["bench", "env=push", "obs=state", f"checkpoint={state_run / 'train' / 'checkpoint'}", "planners=[cem]"]
    assert main([*bench, "energy.prior=0.1"]) == 2
    assert "energy.prior: the checkpoint has no action prior" in capsys.readouterr().err
