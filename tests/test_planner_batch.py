"""A plan is the same alone and in a batch, bit for bit on a CPU, in whatever a model multiplies."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run
from forearm.evaluation.settings import action_space
from forearm.models import precision
from forearm.models.checkpoint import Checkpoint
from forearm.models.precision import Precision, cpu_has_bf16, cpu_has_int8, rollout_precision
from forearm.models.prior import ActionPrior, PriorArchitecture
from forearm.models.world_model import WorldModel
from forearm.planner import PLANNERS, ActionSpace, ControlEnergy, LatentEnergy, make_planner
from torch import Tensor

SHIPPED = Path(__file__).parent.parent / "models" / "pretrained"
BATCH = 9
FEWER = (1, 2, 3, 6)
IN = [
    "fp32",
    pytest.param("bf16", marks=pytest.mark.skipif(not cpu_has_bf16(), reason="no bfloat16")),
    pytest.param("int8", marks=pytest.mark.skipif(not cpu_has_int8(), reason="no VNNI")),
]


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return Checkpoint.load(SHIPPED / "push-pixels-small").model


@pytest.mark.parametrize("name", ["push-pixels-small", "pickplace-pixels+proprio", "drawer-state"])
def test_an_embedding_and_what_is_read_off_it_are_the_same_alone_and_in_a_batch(name: str) -> None:
    """However few rows there are: a library multiplies fewer than four by another kernel."""
    model = Checkpoint.load(SHIPPED / name).model
    generator = torch.Generator().manual_seed(0)
    seen = {
        part: torch.randint(0, 256, (BATCH, *shape), generator=generator).to(torch.uint8)
        if len(shape) == 3
        else torch.randn(BATCH, *shape, generator=generator)
        for part, shape in model.architecture.observations.items()
    }
    z = model.encode(seen)
    maps = [model.slow] if model.readout is None else [model.slow, model.readout]
    for few in FEWER:
        assert torch.equal(model.encode({part: values[:few] for part, values in seen.items()}), z[:few])
        assert all(torch.equal(read(z[:few]), read(z)[:few]) for read in maps)


@pytest.mark.parametrize("numbers", IN)
@pytest.mark.parametrize("name", PLANNERS)
def test_a_plan_is_the_same_alone_and_in_a_batch(name: str, numbers: Precision, model: WorldModel) -> None:
    if numbers == "int8" and "gradient" in name:
        pytest.skip("integers have no gradients")
    model = model.in_precision(numbers)
    space = action_space([-1.0] * 5, [1.0] * 5, 3, model.chunk)
    planner = replace(make_planner(name, space, samples=9, iterations=2), execute="mean")
    z, goal = torch.randn(2, BATCH, model.architecture.latent, generator=torch.Generator().manual_seed(1))

    def plans(count: int) -> list[Tensor]:
        state, found = planner.init(count), list[Tensor]()
        for _ in range(2):
            energy = LatentEnergy(model, z[:count], goal[:count], metric=model.slow) + 0.1 * ControlEnergy()
            plan = planner.plan(energy, state)
            found += plan.actions, plan.energy
            state = planner.shift(plan.state, 1)
        return found

    together = plans(BATCH)
    for few in FEWER:
        assert all(torch.equal(one, all_[:few]) for one, all_ in zip(plans(few), together, strict=True)), few


@pytest.mark.parametrize("numbers", IN)
def test_a_priors_actions_are_the_same_alone_and_in_a_batch(numbers: Precision) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = ActionPrior(PriorArchitecture(latent=8, goal=3, action_size=5, width=128)).requires_grad_(False)
        given = torch.randn(BATCH, 8), torch.randn(BATCH, 3), torch.randn(BATCH, 3), torch.randn(BATCH, 6, 5)
    prior = prior.in_precision(numbers)

    def sample(few: int) -> Tensor:
        z, now, goal, noise = (part[:few] for part in given)
        return prior.sample(z, now, goal, noise)

    for few in FEWER:
        assert torch.equal(sample(few), sample(BATCH)[:few])


def test_two_controllers_on_one_model_keep_their_precisions(model: WorldModel) -> None:
    z, actions = torch.randn(2, 128), torch.rand(2, 4, 4, 5)
    exact = model.rollout(z, actions)
    narrow = model.in_precision("bf16")
    rough = narrow.rollout(z, actions)
    also = narrow.in_precision("fp32")
    assert (model.precision, narrow.precision, also.precision) == ("fp32", "bf16", "fp32")
    assert torch.equal(model.rollout(z, actions), exact) and torch.equal(also.rollout(z, actions), exact)
    assert torch.equal(narrow.rollout(z, actions), rough) and not torch.equal(rough, exact)
    assert model.state_dict().keys() == also.state_dict().keys()
    assert narrow.encoders is model.encoders  # which are not copied


def test_demo_acts_alike_for_two_goals_and_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the default precision, which on a CPU that has it is bfloat16 for the shipped model of push. MPPI's actions
    depend on all energies to the last bit."""
    from forearm.evaluation import measure

    acted: list[np.ndarray] = []
    run_episodes = measure.run_episodes

    def watched(env: Any, goals: Any, *rest: Any) -> Any:
        episodes = run_episodes(env, replace(goals, budget=3), *rest)
        acted.append(np.stack(list(episodes.states)))
        return episodes

    monkeypatch.setattr(measure, "run_episodes", watched)
    monkeypatch.setattr(measure, "write_film", lambda *_: None)
    for episodes in (2, 6):
        words = f"demo env=push planner=mppi episodes={episodes} planner.samples=24 planner.iterations=2 threads=1"
        run(words, f"out={tmp_path / str(episodes)}")
    assert np.array_equal(acted[0], acted[1][:2])


def test_what_a_build_of_torch_lacks_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As macOS's, which has no oneDNN."""
    monkeypatch.setattr(precision.torch.ops, "mkldnn", object())
    assert not cpu_has_bf16() and rollout_precision("auto", "cpu") == "fp32"
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not cpu_has_int8()


def space(bound: float) -> ActionSpace:
    return ActionSpace(low=torch.tensor([-bound]), high=torch.tensor([bound]), steps=4)


def test_bounds_so_far_apart_that_they_overflow_are_refused() -> None:
    largest = torch.finfo(torch.float32).max
    for low, high in ((-largest, largest), (largest, largest), (-largest, -largest)):
        with pytest.raises(ValueError, match="bounds are too far apart for"):
            ActionSpace(low=torch.tensor([low]), high=torch.tensor([high]), steps=4)
    planner = make_planner("cem", space(largest / 4), samples=16, iterations=3)
    assert planner.plan(lambda a: a.sum((-1, -2)), planner.init(1)).actions.isfinite().all()


def test_seeds_are_integers_of_any_kind_and_problems_at_least_one() -> None:
    planner = make_planner("cem", space(1.0), samples=4)
    expected = planner.init(2, 7)
    for seeds in (np.int64(7), np.uint8(7), torch.tensor(7), np.array([7, 8]), [np.int32(7), 8], torch.tensor([7, 8])):
        assert planner.init(2, seeds).seeds == expected.seeds == (7, 8)
    assert {type(seed) for seed in planner.init(2, np.array([7, 8])).seeds} == {int}
    for batch in (0, -1):
        with pytest.raises(ValueError, match=f"batch={batch}: must be at least 1 problem"):
            planner.init(batch)
    with pytest.raises(ValueError, match="3 seeds for 2 problems"):
        planner.init(2, np.arange(3))


@pytest.mark.parametrize("settings", [{"elites": 1.0, "keep": 1.0}, {"elites": 0.5, "keep": 1.0}, {}])
@pytest.mark.parametrize("name", ["icem", "cem_gradient"])
def test_no_more_candidates_are_tried_than_there_are_samples(name: str, settings: dict[str, float]) -> None:
    planner = make_planner(name, space(1.0), samples=16, iterations=6, **settings)
    counts: list[int] = []
    state = planner.init(1)
    for _ in range(3):
        plan = planner.plan(lambda a: (counts.append(a.shape[1]), a.square().sum((-1, -2)))[1], state)
        state = planner.shift(plan.state, 1)
    assert len(counts) == 18 and max(counts) == 16
