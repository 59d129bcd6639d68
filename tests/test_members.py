"""Several predictors over one encoder: they are rolled out, saved, trained and planned with, and cover what can be."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forearm
import numpy as np
import pytest
import torch
from conftest import TINY, exit_code
from forearm import models
from forearm.envs import ArmEnv, make
from forearm.envs.tasks import place_holding, place_object
from forearm.evaluation.energies import EarlyRelease
from forearm.evaluation.foresight import Foreseen, Foresight, foresight
from forearm.evaluation.proposals import PriorRollouts
from forearm.evaluation.settings import EnergySettings, action_space
from forearm.evaluation.timing import time_plans
from forearm.models.checkpoint import Checkpoint, CheckpointError
from forearm.models.prior import ActionPrior, PriorArchitecture
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import CEM, LatentEnergy, make_planner
from forearm.training import loop
from forearm.training.loop import Trainer, TrainingSettings, read_log
from forearm.training.members import draw_lots, members_loss
from forearm.training.objectives import make_objective
from forearm.training.readout import imagine
from torch import Tensor

SHIPPED = sorted(path.parent for path in (Path(models.__file__).parent / "pretrained").glob("*/config.json"))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def small(members: int) -> WorldModel:
    """Weights as if it were trained."""
    torch.manual_seed(0)
    settings = {"width": 16, "depth": 1}
    shapes = {"state": [4]}, {"state": "mlp"}, 2, 2, 4, 8
    model = WorldModel(Architecture(*shapes, predictor_settings=settings, readout=3, members=members))
    for parameter in [p for p in model.parameters() if not p.any()]:
        torch.nn.init.normal_(parameter)
    assert model.readout is not None
    model.readout.fit(normal(100, 4), normal(100, 3, seed=1))
    return model.eval().requires_grad_(False)


# Rolling out


def test_each_member_goes_on_from_what_it_imagined_itself() -> None:
    model, z, actions = small(3), normal(2, 4), normal(2, 8, 8, 2, seed=1)
    futures = model.rollout(z, actions)
    assert futures.shape == (3, 2, 8, 4, 4) and model.members == 3
    assert futures.var(0).flatten(0, 2).amin() > 0, "members differ"
    for member, predictor in enumerate([model.predictor, *model.others]):
        now = z[:, None].expand(-1, 8, -1)
        for step, chunk in enumerate(actions.unflatten(2, (4, 2)).flatten(3).unbind(2)):
            now = predictor(now, chunk)
            assert torch.equal(futures[member, :, :, step], now)
        assert torch.equal(model.imagine(z, actions, member), futures[member])


def test_one_member_is_what_a_model_was_before_there_were_several() -> None:
    model, several = small(1), small(3)
    model.load_state_dict({k: v for k, v in several.state_dict().items() if not k.startswith("others")})
    assert not any("others" in name for name in model.state_dict())
    z, actions = normal(2, 4), normal(2, 5, 8, 2, seed=1)
    assert model.rollout(z, actions).shape == (2, 5, 4, 4)
    assert torch.equal(model.rollout(z, actions), several.rollout(z, actions)[0])


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_checkpoints_have_one_member(folder: Path) -> None:
    assert Checkpoint.load(folder).model.members == 1


def test_a_checkpoint_keeps_its_members(tmp_path: Path) -> None:
    model = small(3)
    Checkpoint(model, "push", {}, "state", (-1.0,) * 2, (1.0,) * 2).save(tmp_path)
    loaded = Checkpoint.load(tmp_path).model
    z, actions = normal(2, 4), normal(2, 5, 8, 2, seed=1)
    assert torch.equal(loaded.rollout(z, actions), model.rollout(z, actions))
    config = json.loads((tmp_path / "config.json").read_text())
    for members, message in ((2, r"model\.safetensors: cannot be loaded .*others\.1"), (0, "members=0: must be at le")):
        config["architecture"]["members"] = members
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError, match=message):
            Checkpoint.load(tmp_path)


# Planning


def test_members_imagine_a_priors_candidates_in_turns() -> None:
    model, space = small(3), action_space([-1.0] * 2, [1.0] * 2, horizon=6, chunk=2)
    prior = ActionPrior(PriorArchitecture(4, 3, 2, segment=6, width=32, depth=1)).eval().requires_grad_(False)
    z, goal = normal(2, 4, seed=2), normal(2, 4, seed=3)

    def offered(model: WorldModel, which: slice, count: int) -> Tensor:
        rollouts = PriorRollouts(model, prior, space, space.steps)
        rollouts.begin(goal[which])
        rollouts.observe(z[which])
        return rollouts.imagine([7, 8][which], 0, count)

    together = offered(model, slice(2), 7)
    torch.testing.assert_close(offered(model, slice(1, 2), 7)[0], together[1])
    for member, predictor in enumerate([model.predictor, *model.others]):
        alone = small(1)
        alone.predictor.load_state_dict(predictor.state_dict())
        turns = slice(member, None, 3)
        torch.testing.assert_close(offered(alone, slice(2), 7)[:, turns], together[:, turns])
    assert offered(model, slice(2), 1).shape == (2, 1, 12, 2), "fewer candidates than members"


def test_plans_weigh_what_members_imagine() -> None:
    model, space = small(3), action_space([-1.0] * 2, [1.0] * 2, horizon=4, chunk=2)
    z, goal = normal(2, 4), normal(2, 4, seed=3)
    planner = make_planner("cem", space, samples=32, iterations=3)
    found = {}
    for ensemble in ("mean", "worst"):
        energy = LatentEnergy(model, z, goal, ensemble=ensemble, metric=model.readout)
        plan = planner.plan(energy, planner.init(2))
        found[ensemble] = plan.actions
        futures = model.rollout(z, plan.actions[:, None])
        each = torch.stack(
            [LatentEnergy(Known(f), z, goal, metric=model.readout)(plan.actions[:, None]) for f in futures]
        )
        torch.testing.assert_close(plan.energy, (each.mean(0) if ensemble == "mean" else each.amax(0))[:, 0])
    assert not torch.equal(found["mean"], found["worst"])
    assert time_plans(model, 8, 1, 2, precision="fp32", repetitions=2).plan_ms_p50 > 0


class Known:
    """Imagines what it is told, whatever is done."""

    def __init__(self, futures: Tensor) -> None:
        self.futures = futures

    def encode(self, observation: object) -> Tensor:
        raise AssertionError("nothing is encoded in a plan")

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        return self.futures


class Heights(torch.nn.Module):
    """A readout that takes embeddings (…, 1) for heights."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(z), torch.zeros_like(z), z), -1)


def test_letting_go_is_charged_for_the_share_of_members_that_see_a_fall() -> None:
    heights = torch.tensor([[0.10, 0.02, 0.02], [0.10, 0.10, 0.10], [0.10, 0.10, 0.02], [0.10, 0.10, 0.10]])
    opening = torch.tensor([0, 1.0, 0]).repeat_interleave(2)
    actions = torch.stack((torch.zeros(6), opening), -1)[None, None]
    known = Known(heights[:, None, None, :, None])
    charged = EarlyRelease(known, Heights(), torch.tensor([[0.10]]), 2)(actions)
    torch.testing.assert_close(charged, torch.tensor([[2 / 4 / 3]]))


def test_each_members_foresight_counts() -> None:
    env = make("pickplace", pixels=False)
    env.reset(seed=0)
    state, idle = env.save_state()[None], np.zeros((1, 10, 5))
    still = np.tile(env.tracked_points()[0], (1, 6, 1))
    lifted = still + np.linspace(0, 0.1, 6)[:, None] * [0, 0, 1]
    found = foresight(env, [Foreseen(state, idle, np.stack([still, still, lifted, lifted]))], chunk=2)
    assert found == Foresight(found.error_cm, 0.5, 1) and found.error_cm == pytest.approx(5.0, abs=0.02)
    found = foresight(env, [Foreseen(state, idle, lifted)], chunk=2)
    assert found == Foresight(found.error_cm, 1.0, 1) and found.error_cm == pytest.approx(10, abs=0.02)


# Training


def test_the_nearest_member_learns_and_the_others_their_share() -> None:
    error = torch.tensor([[1.0, 4.0, 9.0], [2.0, 3.0, 5.0]])[:, :, None, None].expand(2, 3, 4, 6)
    both, one = torch.ones(3, 2, dtype=torch.bool), torch.tensor([[True, False], [False, True], [False, True]])
    nearest, mean, drawn = (1 + 3 + 5) / 3, (1.5 + 3.5 + 7) / 3, (1 + 3 + 5) / 3
    assert members_loss(error, both, 0.0).item() == pytest.approx(nearest)
    assert members_loss(error, both, 1.0).item() == pytest.approx(mean)
    assert members_loss(error, one, 1.0).item() == pytest.approx(drawn)
    assert members_loss(error, both, 0.3).item() == pytest.approx(0.7 * nearest + 0.3 * mean)


def test_a_readout_learns_from_the_future_that_came_nearest() -> None:
    model, z, actions = small(3), normal(6, 11, 4), normal(6, 10, 2, seed=1).clamp(-1, 1)
    imagined, episode, step = imagine(model, z, actions, horizon=3, windows=40, rng=np.random.default_rng(0))
    assert imagined.shape == (40, 3, 4) and step.shape == (40, 3)
    start = step[:, :1] - 2
    futures = model.rollout(z[episode[:, 0], start[:, 0]], actions[episode, start + torch.arange(6)][:, None])[:, :, 0]
    off = (futures - z[episode, step]).square().mean((-1, -2))
    torch.testing.assert_close(imagined, torch.stack([futures[off[:, w].argmin(), w] for w in range(40)]))
    assert len(off.argmin(0).unique()) == 3


def test_lots_are_drawn_by_episode_and_leave_none_out() -> None:
    lots = draw_lots(4, 3000, seed=1)
    assert lots.shape == (3000, 4) and lots.any(1).all()
    assert lots.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (lots[:, 0] != lots[:, 1]).float().mean().item() == pytest.approx(0.32, abs=0.03)
    assert torch.equal(draw_lots(4, 3000, seed=1), lots) and not torch.equal(draw_lots(4, 3000, seed=2), lots)
    assert draw_lots(1, 50, seed=0).all()


def train(run: Path, out: Path, *settings: str) -> None:
    steps = ("steps=6", "log_every=2", "validate_every=3", "save_every=3")
    assert exit_code(["train", f"data={run / 'data'}", "obs=state", f"out={out}", *TINY, *steps, *settings]) == 0


def test_one_member_trains_as_it_did(state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the mean squared error alone: what several share is not asked for."""

    def never(*arguments: object) -> Tensor:
        raise AssertionError("there is nothing to share")

    monkeypatch.setattr(loop, "members_loss", never)
    train(state_run, tmp_path / "run", "model.members=1")
    same = [
        (folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (tmp_path / "run", state_run / "train")
    ]
    assert same[0] == same[1]
    assert not any("nearest_cm" in line for line in read_log(tmp_path / "run"))


def test_several_members_are_trained_resumed_and_planned_with(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, again = tmp_path / "run", tmp_path / "again"
    train(state_run, out, "model.members=3")
    assert "(the nearest member " in capsys.readouterr().out
    validated = [line for line in read_log(out) if "nearest_cm" in line]
    assert len(validated) == 2 and all(line["nearest_cm"] <= line["imagined_cm"] for line in validated)
    with pytest.MonkeyPatch.context() as patch:  # stopped at step 3
        patch.setattr(
            Trainer, "run", lambda self, record: (v for v, _ in zip(RUN(self, record), range(3), strict=False))
        )
        train(state_run, again, "model.members=3")
    train(state_run, again, "model.members=3", "resume=true")
    weights = [(folder / "checkpoint" / "model.safetensors").read_bytes() for folder in (out, again)]
    assert weights[0] == weights[1]
    model = Checkpoint.load(out / "checkpoint").model
    first, second = (member.get_parameter("change.weight") for member in (model.predictor, model.others[0]))
    assert first.any() and second.any() and not torch.equal(first, second)

    cautious = EnergySettings(ensemble="mean_std", ensemble_k=2.0, disagreement=0.5, release=1.0)
    found = forearm.evaluate(
        out / "checkpoint",
        energy=cautious,
        planner=CEM(samples=4, iterations=1),
        planners=["own"],
        episodes=2,
        device="cpu",
        threads=1,
        progress=False,
    )
    (row,) = found.rows
    assert row.energy == "mse, min, mean + 2 std + 1 release + 0.5 disagreement"
    assert row.plan_error_cm is not None and np.isfinite(row.plan_error_cm)


RUN = Trainer.run


# What they cover: a grasp that may slip

CENTRE = np.array([0.45, -0.05, 0.02])
JITTER = 0.003
"""Metres to either side that a cube lies from where it is seen."""
CLOSE, UP, HOLD = -np.eye(5)[4], np.eye(5)[2], np.zeros(5)
SITUATIONS = {
    "held": (0.0, 0.015, CLOSE),
    "at the edge": (0.026, 0.030, CLOSE),
    "missed": (0.040, 0.050, CLOSE),
    "left alone": (0.026, 0.030, HOLD),
}
"""How far the cube is seen from the middle of the fingers, metres, and what they do before the hand goes up."""


def place_cube(env: ArmEnv, x: float, y: float) -> None:
    """The open hand at the table, the cube that far from its middle."""
    place_object(env.data, "cube", CENTRE + np.array([x, y, 0.0]), yaw=0.0)
    place_holding(env.arm, env.data, CENTRE, 0.0, 0.04)
    env.data.ctrl[-1] = 0.04
    env.load_state(env.save_state())


def attempt(env: ArmEnv, situation: str, rng: np.random.Generator, outcomes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """States (outcomes, 9, S) as observed, and the actions (8, 5), of one start that is seen the same each time."""
    low, high, first = SITUATIONS[situation]
    seen, states = rng.uniform(low, high), []
    actions = np.stack([first] * 4 + [UP] * 4).astype(np.float32)
    for jitter in rng.uniform(-JITTER, JITTER, (outcomes, 2)):
        place_cube(env, seen, 0.0)
        episode = [env.observe()["state"]]
        place_cube(env, seen + jitter[0], jitter[1])
        for action in actions:
            env.advance(action)
            episode.append(env.observe()["state"])
        states.append(episode)
    return np.array(states), actions


class Attempts:
    """A recording as `Trainer` sees one: 100 attempts in each situation."""

    def __init__(self, env: ArmEnv) -> None:
        rng = np.random.default_rng(0)
        made = [attempt(env, situation, rng) for _ in range(100) for situation in SITUATIONS]
        self.columns = {"state": np.concatenate([s for s, _ in made]), "action": np.stack([a for _, a in made])}
        self.about, self.sha256, self.length, self.envs = {"policy": "attempts"}, "", 8, (env.name,)
        self.parts = [SimpleNamespace(manifest=SimpleNamespace(env_config={}))]

    def load(self, split: str, columns: list[str]) -> dict[str, np.ndarray]:
        rows = slice(40, None) if split == "train" else slice(40)
        return {name: self.columns[name][rows] for name in columns}

    def load_tracked(self, split: str, tracked: dict[str, slice]) -> np.ndarray:
        return self.load(split, ["state"])["state"][..., tracked[self.envs[0]]]


@pytest.fixture(scope="module")
def slippery() -> tuple[Any, dict[str, list[tuple[np.ndarray, np.ndarray]]]]:
    """A recording, and of each situation four more starts with sixteen outcomes each."""
    env = make("pickplace", pixels=False)
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    return Attempts(env), {s: [attempt(env, s, rng, outcomes=16) for _ in range(4)] for s in SITUATIONS}


def learn(data: Any, relax: float, out: Path) -> WorldModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "predictor_settings": {"width": 64, "depth": 1},
        "encoder_settings": {"state": {"width": 64}},
    }
    shapes = {"state": [17]}, {"state": "mlp"}, 5, 4, 16, 64
    model = WorldModel(Architecture(*shapes, **sizes, readout=3, members=4))
    settings = TrainingSettings(
        steps=400, batch=96, horizon=2, learning_rate=2e-3, warmup=30, relax=relax, precision="fp32"
    )
    settings = replace(settings, validate_every=10_000, save_every=10_000)
    objective = make_objective("vicreg", weight=0.3, covariance=0.1)
    for _ in Trainer(
        model, objective, data, "state", {"pickplace": slice(9, 12)}, settings, out, torch.device("cpu"), {}
    ).run():
        pass
    return model.eval()


@pytest.mark.parametrize("relax", [0.1, 1.0], ids=["the nearest learns", "a plain ensemble"])
def test_members_cover_what_comes_of_a_jittered_start(slippery: Any, relax: float, tmp_path: Path) -> None:
    """The cube is seen at the edge of the fingers and lies 3 mm from there: it is lifted, or slips, or stays.

    Members of which the nearest learns imagine all of that; those of a plain ensemble agree on its mean, which never
    happens. Where the same jitter does not matter, because the grasp is sure, or missed, or never tried, they agree.
    """
    data, starts = slippery
    model = learn(data, relax, tmp_path)
    assert model.readout is not None
    spread, covered, within, branches = {}, {}, {}, {}
    for situation, attempts in starts.items():
        states, actions = (torch.from_numpy(np.stack(part)) for part in zip(*attempts, strict=True))
        with torch.no_grad():
            futures = model.rollout(model.encode({"state": states[:, 0, 0]}), actions[:, None])
            imagined = model.readout(futures)[:, :, 0, -1]  # (E, starts, 3)
        true = states[:, :, -1, 9:12]  # (starts, outcomes, 3)
        off = (imagined[:, :, None] - true).norm(dim=-1)
        low, high = (bound[:, None] for bound in (imagined[..., 2].amin(0) - 0.01, imagined[..., 2].amax(0) + 0.01))
        branches[situation] = true[..., 2].std(1).mean().item()
        spread[situation] = imagined[..., 2].std(0).mean().item()
        covered[situation] = (off.amin(0) < 0.04).float().mean().item()  # the task's tolerance
        within[situation] = ((true[..., 2] > low) & (true[..., 2] < high)).float().mean().item()
    edge = "at the edge"
    sure = [situation for situation in SITUATIONS if situation != edge]
    assert branches[edge] > 0.05 and all(branches[s] < 0.005 for s in sure), "metres, on the simulator"
    assert all(covered[s] > 0.9 for s in sure)
    if relax == 1.0:
        assert spread[edge] < 0.02 and covered[edge] < 0.5
    else:
        assert spread[edge] > 0.04 and all(spread[edge] > 3 * spread[s] for s in sure)
        assert covered[edge] > 0.85 and within[edge] > 0.7
