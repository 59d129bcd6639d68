"""What only a CUDA device can show; elsewhere all of it is skipped."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY, exit_code, run
from forearm.evaluation.planners import measure_gap
from forearm.evaluation.settings import action_space
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import PLANNERS, LatentEnergy, Planner, make_planner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
EVERY = pytest.mark.parametrize("name", PLANNERS)
ACTIONS, LATENT = 2, 16


@pytest.fixture
def model() -> WorldModel:
    architecture = Architecture(
        {"state": [1]}, {"state": "mlp"}, ACTIONS, 2, LATENT, 8, "transformer", {"width": 64, "depth": 1}
    )
    model = WorldModel(architecture)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # whose change is zero before training
        model.predictor.get_submodule("change").weight.normal_(0, 0.1, generator=generator)  # pyright: ignore
    return model.to("cuda").eval().requires_grad_(False)


def energy(model: WorldModel, problems: int, seed: int) -> LatentEnergy:
    generator = torch.Generator("cuda").manual_seed(seed)
    z, goal = torch.randn(2, problems, LATENT, generator=generator, device="cuda")
    return LatentEnergy(model, z, goal, metric=model.slow)


def small(name: str, backend: Any = "auto") -> Planner:
    space = action_space([-1.0] * ACTIONS, [1.0] * ACTIONS, 3, 2).to("cuda")
    return make_planner(name, space, samples=4 if name == "gradient" else 24, iterations=3, backend=backend)


@EVERY
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_nothing_in_a_plan_waits_for_the_device(name: str, model: WorldModel) -> None:
    planner = small(name, "eager")
    target = energy(model, 2, 0)
    state = planner.plan(target, planner.init(2)).state  # what is made once, such as the spline's matrix, is there
    torch.cuda.set_sync_debug_mode("error")
    try:
        planner.plan(target, state)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_look_at_what_is_at_hand_is_captured(model: WorldModel) -> None:
    eager, captured = (replace(small("cem", backend), replan_above=1e9) for backend in ("eager", "auto"))
    state, plan = eager.plan(energy(model, 2, 0), eager.init(2)).state, None
    for seed in range(4):
        expected, plan = (planner.plan(energy(model, 2, seed), state) for planner in (eager, captured))
        torch.testing.assert_close((plan.actions, plan.energy), (expected.actions, expected.energy))
    assert plan is not None and plan.stats.compiled and plan.stats.iterations == 0


@pytest.mark.filterwarnings("ignore:TensorFloat32:UserWarning")  # that it could be less exact
@pytest.mark.parametrize(("name", "backend"), [*((name, "auto") for name in PLANNERS), ("cem", "inductor")])
def test_a_captured_plan_is_the_eager_one_whatever_changes(name: str, backend: str, model: WorldModel) -> None:
    eager, captured = small(name, "eager"), small(name, backend)
    state, plan = eager.init(2), None
    for seed in range(4):  # the second call captures; the goal is another each time
        target = energy(model, 2, seed)
        expected, plan = eager.plan(target, state), captured.plan(target, state)
        torch.testing.assert_close(plan.energy, expected.energy, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(plan.actions, expected.actions, atol=2e-2, rtol=0)
        state = eager.shift(expected.state, 1)
    assert plan is not None and plan.stats.compiled
    for other in (replace(energy(model, 2, 9), reduce="final"), energy(model, 3, 9)):
        batch = len(other.z)
        expected, plan = (planner.plan(other, planner.init(batch)) for planner in (eager, captured))
        torch.testing.assert_close(plan.energy, expected.energy, atol=1e-4, rtol=1e-3)
    if backend == "inductor":
        assert captured._fused(energy(model, 2, 0), torch.zeros(2, 24, 3, ACTIONS).cuda(), None)[1]


def test_rollouts_in_bfloat16_are_near_the_exact_ones(model: WorldModel) -> None:
    z, actions = torch.randn(2, LATENT, device="cuda"), torch.rand(2, 5, 6, ACTIONS, device="cuda")
    exact = model.rollout(z, actions)
    rough = model.in_precision("bf16").rollout(z, actions)
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.05)


def test_plans_on_the_device_come_near_the_optimum() -> None:
    gap = measure_gap("double_integrator", "cem", 8, torch.device("cuda"))
    assert 0 <= gap.gap_median <= gap.gap_worst < 0.01


def test_from_a_recording_to_a_report(tmp_path: Path) -> None:
    """Trained, searched and judged on the device, with all that is learned on top."""
    data, out = tmp_path / "data", tmp_path / "train"
    run("record env=pickplace obs=state episodes=8 length=24 workers=1", f"out={data}")
    small_model = [word for word in TINY if "device" not in word]
    heads = ("readout.steps=4", "prior.steps=4", "temporal.steps=4", "prior.width=16")
    train = ["train", "obs=state", "device=cuda", "steps=6", f"data={data}", f"out={out}"]
    assert exit_code([*train, *small_model, *heads]) == 0
    bench = "bench env=pickplace obs=state device=cuda planners=[shooting,cem,prior] episodes=2 video_episodes=0"
    run(bench, f"checkpoint={out / 'checkpoint'}", "planner_seeds=[0]", f"out={tmp_path / 'bench'}")
    rows = json.loads((tmp_path / "bench" / "results.json").read_text())["rows"]
    assert [row["episodes"] for row in rows] == [2, 2, 2]
