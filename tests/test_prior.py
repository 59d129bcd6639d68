"""The action prior: a flow that keeps ways apart, learned in hindsight, rolled out in the world model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, exit_code
from forearm.cli import main
from forearm.envs import make
from forearm.evaluation.closed_loop import run_episodes
from forearm.evaluation.controllers import ExpertController, PriorController
from forearm.evaluation.energies import EarlyRelease, Remembering
from forearm.evaluation.foresight import LIFTED, Foreseen, Foresight, execute, foresight
from forearm.evaluation.goals import make_goals
from forearm.evaluation.proposals import STIR, PriorRollouts
from forearm.evaluation.results import read_results
from forearm.evaluation.settings import action_space
from forearm.models.checkpoint import Checkpoint, CheckpointError
from forearm.models.prior import ActionPrior, PriorArchitecture
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import make_planner
from forearm.presets import suited
from forearm.training.prior import Hindsight, PriorSettings
from forearm.training.settings import TrainSettings
from torch import Tensor

SPACE = action_space([-1.0] * 2, [1.0] * 2, horizon=4, chunk=2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def world_and_prior() -> tuple[WorldModel, ActionPrior]:
    torch.manual_seed(0)
    settings = {"width": 16, "depth": 1}
    architecture = Architecture({"state": [4]}, {"state": "mlp"}, 2, 2, 4, 8, predictor_settings=settings, readout=3)
    model = WorldModel(architecture).eval().requires_grad_(False)
    assert model.readout is not None
    model.readout.fit(normal(100, 4), normal(100, 3, seed=1))
    torch.nn.init.normal_(model.predictor.get_parameter("change.weight"))
    return model, ActionPrior(PriorArchitecture(4, 3, 2, segment=6, width=32, depth=1)).eval().requires_grad_(False)


def test_a_prior_learns_two_ways_round_and_not_their_mean() -> None:
    """Left or right of something in the way, towards a goal on either side: y = sign of the goal, x = +-0.7."""
    torch.manual_seed(0)
    prior = ActionPrior(PriorArchitecture(2, 1, 2, segment=1, width=64, depth=2))
    optimizer = torch.optim.Adam(prior.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)

    def examples(count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        side = torch.rand(2, count, generator=generator).sub(0.5).sign()
        actions = torch.stack((0.7 * side[0], 0.5 * side[1]), -1)
        return torch.zeros(count, 2), torch.zeros(count, 1), side[1, :, None], actions[:, None]

    for _ in range(600):
        optimizer.zero_grad()
        prior.loss(*examples(256), generator).backward()
        optimizer.step()
    z, now, goal, actions = examples(500)
    with torch.no_grad():
        drawn = prior.sample(z, now, goal, torch.randn(actions.shape, generator=generator))[:, 0]
    assert (drawn[:, 1].sign() == goal[:, 0]).float().mean() > 0.98
    assert (drawn[:, 0].abs() - 0.7).abs().median() < 0.1, "nobody goes through the middle"
    assert 0.4 < (drawn[:, 0] > 0).float().mean() < 0.6
    assert torch.equal(drawn.clamp(-1, 1), drawn)


def test_hindsight_pairs_what_was_done_with_where_it_led() -> None:
    episodes, length = 20, 30
    time = torch.arange(length + 1.0).expand(episodes, -1)
    moves = torch.arange(episodes) >= 10  # in half of the episodes the object moves
    positions = (0.01 * time * moves[:, None])[..., None].expand(-1, -1, 3)
    actions = torch.stack((time[:, :-1], torch.arange(float(episodes))[:, None].expand(-1, length)), -1)
    z = torch.stack((time, torch.arange(float(episodes))[:, None].expand(-1, length + 1)), -1)
    settings = PriorSettings(batch=400, segment=4, ahead=10.0)
    examples = Hindsight(z, positions, actions, settings, seed=1)
    now, here, there, done = examples.batch(3)
    assert torch.equal(done[:, 0], now) and torch.equal(done[:, :, 0].diff(dim=1), torch.ones(400, 3))
    assert torch.equal(done[:, :, 1], now[:, 1:].expand(-1, 4))
    ahead = ((there - here)[:, 0] / 0.01)[now[:, 1] >= 10]
    assert ahead.min() > 3.9 and 7 < ahead.mean() < 12
    assert 0.8 < (now[:, 1] >= 10).float().mean() < 0.99, "mostly from where something moves"
    assert all(torch.equal(one, other) for one, other in zip(examples.batch(3), (now, here, there, done), strict=True))
    assert not torch.equal(examples.batch(4)[0], now)


def test_rollouts_are_the_same_alone_and_in_a_batch_and_end_with_the_plan() -> None:
    model, prior = world_and_prior()
    z, goal = normal(3, 4, seed=2), normal(3, 4, seed=3)
    planner = make_planner("shooting", SPACE, samples=5, iterations=1)

    def candidates(which: slice, seeds: list[int]) -> Tensor:
        rollouts = PriorRollouts(model, prior, SPACE, SPACE.steps)
        rollouts.begin(goal[which])
        rollouts.observe(z[which])
        return rollouts(planner.init(len(seeds), seeds), 5)

    together = candidates(slice(3), [7, 8, 9])
    assert together.shape == (3, 5, SPACE.steps, 2) and together.abs().max() <= 1
    torch.testing.assert_close(candidates(slice(1, 2), [8])[0], together[1])
    assert together.flatten(0, 1).unique(dim=0).shape[0] == 15
    # The second answer is to what the first one led to.
    first = together[:, :, :6]
    later = model.rollout(z, first)[:, :, -1]
    assert model.readout is not None
    noise = action_space([-1.0] * 2, [1.0] * 2, 6, 1).noise([s + (1 << 40) for s in (7, 8, 9)], 0, (2, 5))[1]
    where = model.readout(later).flatten(0, 1)
    goals = model.readout(goal).repeat_interleave(5, 0)
    again = prior.sample(later.flatten(0, 1), where, goals, noise.flatten(0, 1))
    torch.testing.assert_close(together[:, :, 6:].flatten(0, 1), again[:, :2])


def test_offers_rest_where_they_are_imagined_nearest_to_the_goal_if_they_arrive() -> None:
    model, prior = world_and_prior()
    z, goal = normal(2, 4, seed=2), normal(2, 4, seed=3)
    hold_action = torch.tensor([0.3, -0.2])

    def offered(rest: float, near: float) -> Tensor:
        rollouts = PriorRollouts(model, prior, SPACE, SPACE.steps, rest, near, hold_action)
        rollouts.begin(goal)
        rollouts.observe(z)
        return rollouts.imagine([7, 8], 0, 20)

    free = offered(0.0, 1e9)
    assert model.readout is not None
    start = model.readout(z)[:, None, None].expand(-1, 20, 1, -1)
    where = torch.cat((start, model.readout(model.rollout(z, free))), 2)
    apart = (where - model.readout(goal)[:, None, None]).norm(dim=-1)  # at each fourth of the plan
    rested = offered(0.5, 1e9)
    assert torch.equal(rested[:, 10:], free[:, 10:])
    lengths = set()
    for b, i in np.ndindex(2, 10):
        length = int((rested[b, i] == free[b, i]).all(-1).sum())
        assert torch.equal(rested[b, i, :length], free[b, i, :length])
        still = rested[b, i, length:]
        assert torch.equal(still, still[:1].expand_as(still)), "the same over and over"
        assert ((still - hold_action).abs() < 5 * STIR).all()
        # Moves are straight between two model steps, so that the nearest point lies beside the nearest of these, if not
        # on it, but at the end, where the plan ends too.
        nearest = 2 * int(apart[b, i].argmin())
        assert abs(length - nearest) <= 2
        lengths.add(length)
    assert len(lengths) > 2
    near = float(apart[:, :10].amin(-1).median())
    arrived = (offered(0.5, near)[:, :10] == rested[:, :10]).all(-1).all(-1)
    passed = (offered(0.5, near)[:, :10] == free[:, :10]).all(-1).all(-1)
    assert (arrived | passed).all() and arrived.any() and (passed & ~arrived).any()
    assert torch.equal(offered(0.5, 0.0), free)


def test_a_prior_alone_acts_and_draws_anew() -> None:
    model, prior = world_and_prior()
    alone = PriorController(model, prior, SPACE, execute_steps=2)
    states = np.zeros((3, 1))
    observations = {"state": normal(3, 4, seed=5).numpy()}
    acted = []
    for seed in (0, 0, 1):
        alone.begin(states, {"state": normal(3, 4, seed=6).numpy()}, seed)  # pyright: ignore[reportArgumentType]
        acted.append([alone.act(observations, states) for _ in range(2)])
    assert acted[0][0].shape == (3, 2, 2)
    assert np.array_equal(acted[0], acted[1]) and not np.array_equal(acted[0], acted[2])
    assert not np.array_equal(*acted[0])


def test_a_checkpoint_keeps_its_prior(state_run: Path, tmp_path: Path) -> None:
    checkpoint = Checkpoint.load(state_run / "train" / "checkpoint")
    assert checkpoint.prior is None and checkpoint.model.readout is not None
    prior = ActionPrior(PriorArchitecture(8, 3, 5, width=16, depth=1))
    prior.fit_normaliser(normal(50, 8), normal(50, 3))
    replace(checkpoint, prior=prior).save(tmp_path)
    loaded = Checkpoint.load(tmp_path).prior
    assert loaded is not None and loaded.architecture == prior.architecture
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in prior.state_dict().items())
    (tmp_path / "prior.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"prior\.safetensors: cannot be loaded"):
        Checkpoint.load(tmp_path)


def test_train_learns_a_prior_and_bench_plans_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data", tmp_path / "train"
    assert main(["record", "env=pickplace", "episodes=6", "length=20", "workers=1", "obs=state", f"out={data}"]) == 0
    preset, chosen = (suited(TrainSettings, given, "pickplace") for given in ({}, {"prior.steps": 0, "obs": "pixels"}))
    assert (preset.prior.steps, preset.obs, preset.batch) == (8000, "state", 256), "what suits what was recorded"
    assert (chosen.prior.steps, chosen.obs) == (0, "pixels")
    short = ["steps=4", "prior.steps=3", "prior.batch=8", "prior.width=16", "prior.depth=1"]
    short += ["readout.steps=2", "readout.width=8"]
    train = ["train", f"data={data}", f"out={out}", *TINY, *short]
    assert exit_code(train) == 0
    learned = Checkpoint.load(out / "checkpoint")
    assert (learned.obs, learned.about["readout_steps"]) == ("state", 2)
    assert learned.model.readout is not None and learned.model.readout.correction is not None
    assert learned.model.readout.correction[-1].get_parameter("weight").abs().max() > 0
    weights = [(out / "checkpoint" / f"{name}.safetensors").read_bytes() for name in ("prior", "model")]
    assert exit_code([*train, "resume=true"]) == 0
    again = [(out / "checkpoint" / f"{name}.safetensors").read_bytes() for name in ("prior", "model")]
    assert again == weights, "what is there stays"
    bench = ["bench", "env=pickplace", "obs=state", f"checkpoint={out / 'checkpoint'}", "episodes=2", "threads=1"]
    bench += ["planners=[shooting,prior]", "planner=shooting", "planner.prior=1.0", "planner.samples=4"]
    bench += ["planner.iterations=1", "planner_seeds=[0]", "energy.metric=object", "video_episodes=0"]
    assert main([*bench, f"out={tmp_path / 'bench'}"]) == 0
    planned, alone = read_results(tmp_path / "bench" / "results.json").rows
    assert (planned.planner, alone.planner) == ("shooting + prior", "prior")
    assert planned.drops is not None and alone.drops is not None
    assert planned.plan_error_cm is not None and planned.phantoms is not None and alone.phantoms is None
    capsys.readouterr()
    assert main([*bench, f"checkpoint={out / 'checkpoint'}", "planner.prior=2.0", f"out={tmp_path / 'no'}"]) == 2
    assert "planner.prior=2.0: must lie in 0 … 1" in capsys.readouterr().err
    assert main([*bench, f"checkpoint={out / 'checkpoint'}", "planner.prior_stop=-1", f"out={tmp_path / 'no'}"]) == 2
    assert "planner.prior_stop=-1.0: must lie in 0 … 1" in capsys.readouterr().err
    for setting, message in (
        ("prior.segment=3", "prior.segment=3: must be a multiple of model.chunk=2"),
        ("readout.horizon=0", "readout.horizon=0: must be at least 1"),
    ):
        assert exit_code(["train", f"data={data}", "obs=state", f"out={tmp_path / 'no'}", setting]) == 2
        assert message in capsys.readouterr().err


def test_without_a_prior_bench_says_how_to_get_one(state_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = f"checkpoint={state_run / 'train' / 'checkpoint'}"
    assert main(["bench", "env=push", "obs=state", checkpoint, "planners=[prior]"]) == 2
    assert "the checkpoint has no action prior; `forearm train prior.steps=…`" in capsys.readouterr().err


class Heights(torch.nn.Module):
    """A readout that takes embeddings (…, 1) for heights."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(z), torch.zeros_like(z), z), -1)


def test_letting_go_counts_opening_before_a_fall_and_nothing_else() -> None:
    """Plans of three model steps: let go and fallen; lowered; fallen unopened; put down first; let go early."""
    falls = [[0.10, 0.02, 0.02], [0.10, 0.06, 0.02], [0.10, 0.02, 0.02], [0.03, 0.02, 0.02], [0.06, 0.035, 0.02]]
    heights = torch.tensor(falls)
    opening = torch.tensor([[0, 1.0, 0], [0, 0, -1], [-1, -1, -1], [0, 0, 1], [0, 0, 1]]).repeat_interleave(2, 1)
    actions = torch.stack((torch.zeros(5, 6), opening), -1)[None]

    class Known:
        def encode(self, observation: object) -> Tensor:
            raise AssertionError("nothing is encoded in a plan")

        def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
            return heights[None, ..., None]

    charged = EarlyRelease(Remembering(Known()), Heights(), torch.tensor([[0.10]]), 2)(actions)
    torch.testing.assert_close(charged, torch.tensor([[1 / 3, 0, 0, 0, 1 / 3]]))


def test_what_several_terms_imagine_is_imagined_once() -> None:
    model, _ = world_and_prior()
    remembering = Remembering(model)
    actions, others = normal(2, 3, 8, 2), normal(2, 3, 8, 2, seed=1)
    first = remembering.rollout(normal(2, 4), actions)
    assert remembering.rollout(normal(2, 4), actions) is first
    assert not torch.equal(remembering.rollout(normal(2, 4), others), first)


def test_foresight_finds_errors_and_phantom_lifts() -> None:
    env = make("pickplace", pixels=False)
    goals = make_goals(env, 2, seed=0)
    episodes = run_episodes(env, goals, ExpertController(env), seed=0)
    states, actions = episodes.states[:, 0], episodes.actions[:, :40]
    true = np.stack([execute(env, *plan) for plan in zip(states, actions, strict=True)])[:, ::2]
    assert true.shape == (2, 21, 3) and (np.ptp(true[..., 2], axis=1) > LIFTED).all(), "the expert lifts"
    assert foresight(env, [Foreseen(states, actions, true)], chunk=2) == Foresight(0.0, 0.0, 2)
    off = true + np.linspace(0, 1, 21)[:, None] * [0.2, 0, 0]
    assert foresight(env, [Foreseen(states, actions, off)], chunk=2).error_cm == pytest.approx(20 * 5 / 20)
    idle = np.zeros_like(actions)
    assert foresight(env, [Foreseen(states, idle, true)], chunk=2).phantoms == 1.0


def test_a_prior_is_learned_on_a_world_model_that_stays_as_it_is(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, world, out = state_run / "data", state_run / "train" / "checkpoint", tmp_path / "on-top"
    train = ["train", f"data={data}", "obs=state", f"frozen={world}", f"out={out}", "device=cpu", "threads=1"]
    short = ["readout.steps=2", "readout.width=8", "prior.steps=3", "prior.width=16", "prior.depth=1"]
    assert main(["train", f"data={data}", "obs=state", f"frozen={world}", f"out={tmp_path / 'no'}"]) == 2
    assert "set what is to be learned on it" in capsys.readouterr().err
    assert exit_code([*train, *short, "model.chunk=3"]) == 2
    assert "model.chunk=3: the checkpoint was trained for model.chunk=2" in capsys.readouterr().err
    assert exit_code([*train, *short]) == 0
    before, after = Checkpoint.load(world), Checkpoint.load(out / "checkpoint")
    held = {key: value for key, value in before.model.state_dict().items() if not key.startswith("readout.")}
    assert held, "all of the world model"
    for key, value in held.items():
        assert torch.equal(after.model.state_dict()[key], value)
    assert after.prior is not None and after.model.readout is not None
    assert after.model.readout.correction is not None
    assert (after.about["prior_steps"], after.about["steps"]) == (3, before.about["steps"])
    weights = (out / "checkpoint" / "prior.safetensors").read_bytes()
    assert exit_code([*train, *short, "resume=true"]) == 0
    assert (out / "checkpoint" / "prior.safetensors").read_bytes() == weights, "what is there stays"
