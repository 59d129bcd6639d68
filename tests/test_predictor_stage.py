"""A predictor learned anew on a world model's embeddings: nothing else of the model changes."""

from pathlib import Path

import pytest
import torch
from conftest import TINY, exit_code
from forearm.cli import main
from forearm.evaluation.results import read_results
from forearm.models.checkpoint import Checkpoint
from forearm.models.world_model import Architecture, WorldModel
from forearm.training.heads import Recorded
from forearm.training.predictor import PredictorSettings, train_predictor
from torch import Tensor

CHUNK, LATENT, ACTIONS, LENGTH = 2, 4, 2, 20


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def turning(episodes: int, seed: int) -> Recorded:
    """Embeddings that turn by a tenth of a radian a step, and that actions push."""
    angle = torch.tensor(0.1)
    turn = torch.block_diag(*[torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])] * 2)
    push = 0.2 * normal(ACTIONS, LATENT, seed=0)
    actions = normal(episodes, LENGTH, ACTIONS, seed=seed)
    z = [normal(episodes, LATENT, seed=seed + 1)]
    for action in actions.unbind(1):
        z.append(z[-1] @ turn + action @ push)
    return Recorded(torch.stack(z, 1), torch.zeros(episodes, LENGTH + 1, 0), actions)


def fresh() -> WorldModel:
    torch.manual_seed(0)
    settings = {"width": 32, "depth": 1}
    shape = Architecture({"state": [3]}, {"state": "mlp"}, ACTIONS, CHUNK, LATENT, predictor_settings=settings)
    return WorldModel(shape).eval().requires_grad_(False)


def error(model: WorldModel, recorded: Recorded) -> float:
    """Of the whole episodes, imagined from their first embeddings."""
    imagined = model.rollout(recorded.z[:, 0], recorded.actions[:, None])[:, 0]
    return float((imagined - recorded.z[:, CHUNK::CHUNK]).square().mean())


def test_it_learns_how_embeddings_go_on_and_leaves_the_rest_alone() -> None:
    model, held_out = fresh(), turning(50, seed=7)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    untrained = error(model, held_out)
    train_predictor(model, turning(200, seed=1), PredictorSettings(steps=400, batch=64, horizon=4), seed=0)
    assert error(model, held_out) < 0.03 * untrained
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed and all(key.startswith("predictor.") for key in changed)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_it_repeats_with_its_seed() -> None:
    found = []
    for seed in (3, 3, 4):
        model = fresh()
        train_predictor(model, turning(8, seed=1), PredictorSettings(steps=2, batch=4, horizon=99), seed=seed)
        found.append(model.predictor.state_dict()["change.weight"].clone())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_train_puts_a_smaller_one_on_a_world_model_and_bench_plans_with_it(
    state_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, world, out = state_run / "data", state_run / "train" / "checkpoint", tmp_path / "small"
    small = ["model.predictor_width=4", "model.predictor_depth=1", "predictor.batch=8"]
    train = ["train", f"data={data}", "obs=state", *TINY, *small]
    on_world = [*train, f"frozen={world}", f"out={out}", "predictor.steps=3"]
    for settings, message in (
        ([*train, "predictor.steps=3", f"out={tmp_path / 'no'}"], "predictor.steps=3: needs frozen=CHECKPOINT"),
        ([*on_world, "model.members=2"], "model.members=2: predictor.steps learns one"),
        ([*on_world, "predictor.horizon=0"], "predictor.horizon=0: must be at least 1"),
    ):
        assert exit_code(settings) == 2 and message in capsys.readouterr().err
    assert exit_code(on_world) == 0
    before, after = Checkpoint.load(world), Checkpoint.load(out / "checkpoint")
    assert after.model.architecture.predictor_settings == {"width": 4, "depth": 1}
    assert after.about["predictor_steps"] == 3 and "predictor 3" in after.told()
    assert bool(after.model.predictor.state_dict()["change.weight"].any()), "it was trained"
    for key, value in before.model.state_dict().items():
        if key.startswith(("encoders.", "project.", "metric")):
            assert torch.equal(after.model.state_dict()[key], value)
    weights = (out / "checkpoint" / "model.safetensors").read_bytes()
    assert exit_code([*on_world, "resume=true"]) == 0
    assert (out / "checkpoint" / "model.safetensors").read_bytes() == weights, "what is there stays"

    later = [
        *train,
        f"frozen={out / 'checkpoint'}",
        f"out={tmp_path / 'later'}",
        "temporal.steps=2",
        "temporal.batch=4",
    ]
    assert exit_code(later) == 0
    on_top = Checkpoint.load(tmp_path / "later" / "checkpoint")
    assert on_top.about["predictor_steps"] == 3 and on_top.temporal is not None
    bench = ["bench", "obs=state", f"checkpoint={out / 'checkpoint'}", "episodes=2", "threads=1", "planners=[cem]"]
    bench += ["planner.samples=8", "planner.iterations=1", "planner.horizon=2", "planner_seeds=[0]", "video_episodes=0"]
    assert main([*bench, f"out={tmp_path / 'bench'}"]) == 0
    assert read_results(tmp_path / "bench" / "results.json").rows[0].evaluations == 8
