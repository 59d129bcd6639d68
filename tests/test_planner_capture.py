"""Searches that are recorded and replayed: what is looked at, and what is seen when it changes. The recorder here runs
the function again, on the tensors that a CUDA graph would read; tests/test_gpu.py has the real one."""

import shutil
import warnings
from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forearm.envs import make
from forearm.evaluation.closed_loop import run_episodes, stack
from forearm.evaluation.controllers import LatentMPC, tensors
from forearm.evaluation.energies import METRICS
from forearm.evaluation.goals import make_goals
from forearm.evaluation.settings import EnergySettings, PlannerSettings, PlanningSettings, action_space
from forearm.models.checkpoint import Checkpoint
from forearm.models.temporal import TemporalArchitecture, TemporalDistance
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import (
    CEM,
    PLANNERS,
    ControlEnergy,
    Energy,
    KeepOut,
    LatentEnergy,
    Planner,
    TensorEnergy,
    make_planner,
)
from forearm.planner.capture import Captured, OpaqueError, Parts, together
from forearm.planner.compilation import Fast
from torch import Tensor, nn

ACTIONS, LATENT = 2, 6
SHIPPED = Path(__file__).parent.parent / "models" / "pretrained"


def small(name: str) -> Planner:
    space = action_space([-1.0] * ACTIONS, [1.0] * ACTIONS, 2, 2)
    return make_planner(name, space, samples=4 if name == "gradient" else 12, iterations=2)


def captured(name: str, records: list[int], replan_above: float = -torch.inf) -> Planner:
    """A planner that replays; `records` counts what was recorded."""

    def record(function: Callable[[], Any]) -> Callable[[], Any]:
        records.append(1)
        return function

    planner = replace(small(name), replan_above=replan_above)
    vars(planner).update(_fast=Captured(planner._search, record), _fast_look=Captured(planner._look, record))
    return planner


@pytest.fixture
def model() -> WorldModel:
    architecture = Architecture({"state": [1]}, {"state": "mlp"}, ACTIONS, 2, LATENT, 8, "residual", {"width": 8})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(architecture).eval().requires_grad_(False)
        model.predictor.get_submodule("change").weight.normal_()  # pyright: ignore[reportCallIssue]
    return model


def towards(model: WorldModel, seed: int, problems: int = 2, **settings: Any) -> Energy:
    z, goal = torch.randn(2, problems, LATENT, generator=torch.Generator().manual_seed(seed))
    return LatentEnergy(model, z, goal, metric=model.slow, **settings) + 0.1 * ControlEnergy()


@pytest.mark.parametrize("name", PLANNERS)
def test_a_replay_finds_what_an_eager_search_finds_whatever_changes(name: str, model: WorldModel) -> None:
    records: list[int] = []
    eager, replayed = small(name), captured(name, records)
    state = eager.init(2)

    def same(energy: Energy, previous: Tensor | None = None) -> bool:
        expected, plan = (p.plan(energy, state, previous_action=previous) for p in (eager, replayed))
        torch.testing.assert_close((plan.actions, plan.energy), (expected.actions, expected.energy))
        return plan.stats.compiled

    assert [same(towards(model, 0)), same(towards(model, 1)), same(towards(model, 2))] == [False, True, True]
    state = eager.shift(eager.plan(towards(model, 2), state).state, 1)
    same(towards(model, 2))  # icem keeps elites by now
    same(towards(model, 2))
    records.clear()
    with torch.no_grad():
        model.predictor.get_submodule("change").weight.mul_(-1)  # pyright: ignore[reportCallIssue]
    assert same(towards(model, 3)) and not records  # goal, start, state and weights: all seen
    assert not same(towards(model, 3, reduce="final")) and same(towards(model, 4, reduce="final"))
    assert not same(towards(model, 3), torch.zeros(2, ACTIONS))  # another argument
    model.predictor = type(model.predictor)(LATENT, 2 * ACTIONS, width=8)  # other weights, in another place
    assert not same(towards(model, 3)) and same(towards(model, 3)) and len(records) == 2


@pytest.mark.parametrize("name", PLANNERS)
def test_a_replay_may_evaluate_by_a_compiled_function(name: str, model: WorldModel) -> None:
    """As it does on a GPU under backend=inductor."""
    eager, fused = small(name), captured(name, [])
    evaluate = Fast(fused._expand_and_evaluate, "aot_eager", torch.device("cpu"), gradients=False)
    vars(fused).update(_piecewise=True, _fused=evaluate)
    state, plan = eager.init(2), None
    for seed in range(3):
        expected, plan = (planner.plan(towards(model, seed), state) for planner in (eager, fused))
        torch.testing.assert_close((plan.actions, plan.energy), (expected.actions, expected.energy))
        state = expected.state
    assert plan is not None and plan.stats.compiled
    knots = torch.zeros(2, 3, fused.space.knots, ACTIONS)
    evaluate(towards(model, 3), knots, None)  # the gradient planners' first
    assert evaluate(towards(model, 3), knots, None)[1]


def test_a_look_at_what_is_at_hand_is_replayed(model: WorldModel) -> None:
    records: list[int] = []
    eager, replayed = replace(small("icem"), replan_above=1e9), captured("icem", records, replan_above=1e9)
    state = eager.plan(towards(model, 0), eager.init(2)).state
    for seed in range(3):
        expected, plan = (planner.plan(towards(model, seed), state) for planner in (eager, replayed))
        torch.testing.assert_close((plan.actions, plan.energy), (expected.actions, expected.energy))
        assert plan.stats.iterations == 0 and plan.stats.compiled == (seed > 0)
    assert records == [1]


@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own
def test_a_search_on_a_world_model_compiles_with_kernels(model: WorldModel) -> None:
    eager, compiled = small("cem"), replace(small("cem"), backend="inductor")
    plans = [compiled.plan(towards(model, seed), compiled.init(2)) for seed in range(2)]
    assert [plan.stats.compiled for plan in plans] == [False, True]
    expected = eager.plan(towards(model, 1), eager.init(2))
    torch.testing.assert_close((plans[1].actions, plans[1].energy), (expected.actions, expected.energy))


def test_an_earlier_plan_stays_what_it_was(model: WorldModel) -> None:
    planner = captured("cem", [])
    plans = [planner.plan(towards(model, seed), planner.init(2, seed)) for seed in (0, 0, 1)]
    assert plans[1].stats.compiled and torch.equal(plans[0].actions, plans[1].actions)
    assert not torch.equal(plans[1].actions, plans[2].actions)


GOAL = torch.zeros(ACTIONS)


@pytest.mark.parametrize("way", ["closure", "default", "keyword-only default", "module-level name", "attribute"])
def test_a_bare_function_is_never_replayed_wherever_its_goal_is(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[int] = []
    eager, replayed = small("cem"), captured("cem", records)

    def to(goal: Tensor) -> Energy:
        def distance(actions: Tensor, to: Tensor) -> Tensor:
            return (actions - to).square().sum((-1, -2))

        monkeypatch.setitem(globals(), "GOAL", goal)

        def keyword_only(actions: Tensor, *, goal: Tensor = goal) -> Tensor:
            return distance(actions, goal)

        class Towards:
            def __init__(self) -> None:
                self.goal = goal

            def __call__(self, actions: Tensor, /) -> Tensor:
                return distance(actions, self.goal)

        return {
            "closure": lambda actions: distance(actions, goal),
            "default": lambda actions, goal=goal: distance(actions, goal),
            "keyword-only default": keyword_only,
            "module-level name": lambda actions: distance(actions, GOAL),
            "attribute": Towards(),
        }[way]

    for goal in (0.5, 0.5, -0.5, 0.2):
        energy = 2.0 * ControlEnergy() + to(torch.full((ACTIONS,), goal))
        expected, plan = (planner.plan(energy, planner.init(2)) for planner in (eager, replayed))
        assert torch.equal(plan.actions, expected.actions)
        assert plan.stats.backend == "eager"
    assert not records


def test_a_function_is_replayed_with_the_tensors_it_is_given() -> None:
    records: list[int] = []
    eager, replayed = small("cem"), captured("cem", records)

    def distance(actions: Tensor, goal: Tensor) -> Tensor:
        return (actions - goal).square().sum((-1, -2))

    backends = []
    for goal in (0.5, 0.5, -0.5, 0.2):
        energy = TensorEnergy(distance, (torch.full((ACTIONS,), goal),)) + 0.1 * ControlEnergy()
        expected, plan = (planner.plan(energy, planner.init(2)) for planner in (eager, replayed))
        assert torch.equal(plan.actions, expected.actions)
        backends.append(plan.stats.compiled)
    assert backends == [False, True, True, True] and len(records) == 1
    away = TensorEnergy(lambda actions, goal: -distance(actions, goal), (torch.zeros(ACTIONS),))
    assert not replayed.plan(away, replayed.init(2)).stats.compiled  # another function


def test_what_cannot_be_recorded_runs_all_the_same_and_says_why_once(model: WorldModel) -> None:
    def fails(function: Callable[[], Any]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    eager, unrecorded = small("cem"), small("cem")
    vars(unrecorded)["_fast"] = Captured(unrecorded._search, fails)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for reduce in ("min", "min", "min", "final", "final"):
            plan = unrecorded.plan(towards(model, 0, reduce=reduce), unrecorded.init(2))
            assert plan.stats.backend == "eager"
            assert torch.equal(plan.actions, eager.plan(towards(model, 0, reduce=reduce), eager.init(2)).actions)
    assert [str(each.message) for each in caught] == [
        "a search cannot be recorded, and runs eagerly: RuntimeError: operation not permitted when stream is capturing"
    ]


def test_problems_in_turns_are_each_recorded(model: WorldModel) -> None:
    records: list[int] = []
    planner = captured("cem", records)
    replays = [
        planner.plan(towards(model, seed, problems), planner.init(problems)).stats.compiled
        for seed in range(3)
        for problems in (1, 3)
    ]
    assert replays == [False, False, True, True, True, True] and len(records) == 2


def test_no_more_recordings_are_kept_than_said(model: WorldModel) -> None:
    records: list[int] = []
    planner = captured("cem", records)
    for problems in (*range(1, Captured.KEPT + 2), 1):
        for _ in range(2):
            assert planner.plan(towards(model, 0, problems), planner.init(problems)).state.mean.shape[0] == problems
    assert len(records) == Captured.KEPT + 2  # the first had to make room, and was recorded anew


def test_arguments_are_taken_apart_and_put_together() -> None:
    linear = nn.Linear(2, 2)
    value = (torch.zeros(3), ControlEnergy(0.5), KeepOut(linear.forward, True, torch.ones(1), torch.ones(2)), None, "a")
    parts = Parts()
    structure = parts.take(value)
    assert [tensor.shape for tensor in parts.tensors] == [(3,), (1,), (2,)]
    assert all(any(held is part for held in parts.held) for part in (linear, linear.weight, linear.bias))
    other = together(value, iter([tensor + 1 for tensor in parts.tensors]))
    assert torch.equal(other[0], torch.ones(3)) and torch.equal(other[2].high, torch.full((2,), 2.0))
    assert (
        vars(other[1]) == vars(value[1]) and other[2].quantity.__self__ is linear and Parts().take(other) == structure
    )
    assert Parts().take((torch.zeros(4), *value[1:])) != structure
    for strange in (np.zeros(2), [1.0], {"a": 1.0}, torch.Generator(), len, lambda x: x, partial(print, 1)):
        with pytest.raises(OpaqueError):
            Parts().take((strange,))
    assert Parts().take(ControlEnergy(1.0)) != Parts().take(ControlEnergy())


def test_a_module_is_another_when_anything_in_it_changes(model: WorldModel) -> None:
    held: list[Any] = []  # so that no address is used again

    def look() -> Hashable:
        held.extend((weight, weight.data) for weight in (*model.parameters(), *model.buffers()))
        return Parts().take(model)

    known = look()
    head, first = model.predictor.get_submodule("change"), model.predictor.get_submodule("blocks.0")
    assert isinstance(head, nn.Linear) and isinstance(first, nn.Module)
    weight = head.weight

    def after(change: Callable[[], object]) -> Hashable:
        change()
        return look()

    assert after(lambda: head.weight.mul_(2)) == known  # read where it lies
    changed = [
        after(lambda: setattr(weight, "data", weight.data.clone())),
        after(lambda: setattr(weight, "data", weight.data.double())),
        after(lambda: setattr(head, "weight", nn.Parameter(torch.zeros(LATENT, 8)))),
        after(first.train),
        after(lambda: setattr(first, "gain", 2.0)),
        after(lambda: setattr(model, "metric", model.metric.clone())),
        after(lambda: model.predictor.register_module("blocks", nn.Sequential(first))),
        after(lambda: head.register_forward_hook(print)),
    ]
    assert len({known, *changed}) == 9
    assert after(lambda: head._forward_hooks.clear()) == changed[-2]  # as it was before
    assert Parts().take(model.in_precision("bf16")) != look()


def test_all_that_a_controller_charges_says_what_it_depends_on() -> None:
    """Nothing of Forearm's own falls back to eager plans on a GPU without a word."""
    checkpoint = Checkpoint.load(SHIPPED / "pickplace-state")
    env = make("pickplace", pixels=False)
    energy = EnergySettings(
        metric="object",
        clip=0.1,
        control=0.1,
        release=1.0,
        prior=0.1,
        keep_out="0.4,-0.05,0..0.5,0.05,0.2",
        keep_out_weight=1.0,
    )
    planner = PlannerSettings(search=CEM(samples=8, iterations=1), horizon=9)
    controller = LatentMPC(env, checkpoint, PlanningSettings(planner=planner, energy=energy))
    run_episodes(env, replace(make_goals(env, 1, 0), budget=1), controller, 0)
    charged = controller._make_energy(tensors(controller.model, stack([env.observe()]), "cpu"))
    assert len(Parts().take(charged)) > 1  # pyright: ignore[reportArgumentType]
    added = METRICS["slow+temporal"](checkpoint.model, TemporalDistance(TemporalArchitecture(32)))
    assert len(Parts().take(added)) > 1  # pyright: ignore[reportArgumentType]
    env.close()
