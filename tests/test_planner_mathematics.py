"""Planners against cases small enough to be worked out by hand: refits, elites, gradient steps, clocks, splines."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import settings_of
from forearm.evaluation.settings import PlannerSettings
from forearm.planner import (
    CEM,
    ICEM,
    MPPI,
    PLANNERS,
    ActionSpace,
    Agent,
    CEMGradient,
    ControlEnergy,
    Gradient,
    KeepOut,
    LatentEnergy,
    Limits,
    Plan,
    Planner,
    PlanState,
    PlanStats,
    Proposal,
    RandomShooting,
    Status,
    make_planner,
)
from forearm.planner.actions import _mix, _splitmix
from forearm.planner.base import Execute
from forearm.planner.gaussian import GaussianPlanner, by_rank
from forearm.planner.gradient import adam_step
from forearm.planner.mppi import temperature_for
from forearm.planner.problems import PROBLEMS, corridor, double_integrator, riccati, stiff_double_integrator
from forearm.settings import tree
from torch import Tensor

EVERY = pytest.mark.parametrize("name", PLANNERS)
REFITTING = [name for name, kind in PLANNERS.items() if issubclass(kind, GaussianPlanner)]
GAUSSIAN = pytest.mark.parametrize("name", REFITTING)
LINE = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=1)
"""One action at one step: a knot is a plan, and both are one number."""


def numbers(*values: float) -> Tensor:
    """Knots or actions (1, N, 1, 1)."""
    return torch.tensor(values)[None, :, None, None]


def square(to: float) -> Callable[[Tensor], Tensor]:
    return lambda actions: (actions - to).square().sum((-1, -2))


def watched(energy: Callable[[Tensor], Tensor]) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """The energy, and the actions that it is asked about."""
    seen: list[Tensor] = []

    def watching(actions: Tensor) -> Tensor:
        seen.append(actions.detach().clone())
        return energy(actions)

    return watching, seen


# Settings


@pytest.mark.parametrize("name", PLANNERS)
def test_python_and_the_command_line_have_the_same_defaults(name: str) -> None:
    assert tree(settings_of("bench", [f"planner={name}"]).planner) == tree(PlannerSettings(search=PLANNERS[name]()))


ALLOWED: list[tuple[str, dict[str, Any]]] = [
    ("cem", {"samples": 2, "iterations": 1, "sigma": 0.01}),
    ("shooting", {"samples": 1, "iterations": 1}),
    ("cem", {"elites": 1.0, "sigma": 0.5, "sigma_min": 0.5}),
    ("cem", {"momentum": 0.0, "sigma_min": 0.0}),
    ("icem", {"keep": 0.0, "decay": 1.0}),
    ("icem", {"keep": 1.0}),
    ("mppi", {"effective": 0.999, "temperature": 1e-9}),
    ("cem_gradient", {"refine": 0.999}),
    ("cem", {"execute": "mean", "replan_above": -math.inf, "backend": "eager"}),
]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    *(("cem", {"samples": 1}), ("cem", {"iterations": 0}), ("cem", {"sigma": 0.0}), ("shooting", {"samples": 0})),
    *(("cem", {"elites": 0.0}), ("cem", {"elites": 1.001}), ("cem", {"backend": "fast"})),
    *(("cem", {"sigma_min": 0.51}), ("cem", {"sigma_min": -0.01}), ("cem", {"momentum": -0.01})),
    *(("icem", {"keep": -0.01}), ("icem", {"keep": 1.01}), ("icem", {"decay": 0.999}), ("icem", {"elites": 0.0})),
    *(("icem", {"momentum": 1.0}), ("mppi", {"effective": 0.0}), ("mppi", {"effective": 1.0})),
    *(
        ("mppi", {"temperature": 0.0}),
        ("mppi", {"temperature": -1.0}),
        ("mppi", {"samples": 1}),
        ("cem_gradient", {"refine": 0.0}),
    ),
    *(("cem_gradient", {"refine": 1.0}), ("cem_gradient", {"keep": 2.0}), ("gradient", {"samples": 1})),
]


@pytest.mark.parametrize(("name", "settings"), ALLOWED)
def test_settings_at_their_limits_are_allowed_and_plan(name: str, settings: dict[str, Any]) -> None:
    planner = make_planner(name, LINE, **settings)
    assert planner.plan(square(0.2), planner.init(1)).energy.isfinite().all()


@pytest.mark.parametrize(("name", "settings"), REFUSED)
def test_settings_beyond_their_limits_are_refused(name: str, settings: dict[str, Any]) -> None:
    (key,) = settings
    with pytest.raises(ValueError, match=f"{key}="):
        make_planner(name, LINE, **settings)


def test_settings_of_a_space_at_their_limits() -> None:
    ActionSpace(low=torch.zeros(1), high=torch.zeros(1), steps=1, chunk=1, knots=1, slew=torch.tensor([1e-9]))
    ActionSpace(low=torch.zeros(1), high=torch.zeros(1), steps=4, knots=4, chunk=4)
    wrong: list[dict[str, Any]] = [
        *({"steps": 0}, {"steps": 4, "chunk": 0}, {"steps": 4, "knots": -1}, {"steps": -2, "chunk": 1}),
        *({"steps": 4, "slew": torch.ones(2)}, {"steps": 4, "slew": torch.tensor([torch.nan])}),
        {"steps": 4, "low": torch.zeros(1, 1), "high": torch.zeros(1, 1)},
        {"steps": 4, "high": torch.ones(1).double()},
        *({"steps": 4, "high": torch.tensor([torch.inf])}, {"steps": 4, "low": torch.tensor([torch.nan])}),
    ]
    for settings in wrong:
        with pytest.raises(ValueError, match="must"):
            ActionSpace(**{"low": torch.zeros(1), "high": torch.ones(1), **settings})


# Refits


def test_samples_lie_around_the_mean_and_in_the_box() -> None:
    planner = MPPI(space=LINE, samples=4)
    state = replace(planner.init(1), mean=torch.full((1, 1, 1), 0.5), std=torch.full((1, 1, 1), 0.25))
    proposed = planner.propose(state, numbers(0.0, 2.0, -8.0, 8.0), 0)
    assert torch.equal(proposed, numbers(0.5, 1.0, -1.0, 1.0))


def test_mppi_refits_to_all_samples() -> None:
    """At temperature 1 the energies 0 and log 3 weigh 3/4 and 1/4."""
    planner = MPPI(space=LINE, samples=2, temperature=1.0)
    after = planner.update(planner.init(1), numbers(0.4, -0.4), torch.tensor([[7.0, 7.0 + math.log(3)]]), 0)
    assert after.mean.item() == pytest.approx(0.2)
    assert after.std.item() == pytest.approx(math.sqrt(0.75 * 0.2**2 + 0.25 * 0.6**2))
    old = replace(planner.init(1), mean=torch.full((1, 1, 1), -0.1))
    kept = replace(planner, momentum=0.75).update(old, numbers(0.4, -0.4), torch.tensor([[0.0, math.log(3)]]), 0)
    assert kept.mean.item() == pytest.approx(0.75 * -0.1 + 0.25 * 0.2)
    assert kept.std.item() == pytest.approx(0.75 * 0.5 + 0.25 * math.sqrt(0.12))


@GAUSSIAN
def test_samples_that_are_alike_narrow_the_search_to_its_smallest_width(name: str) -> None:
    planner: Any = make_planner(name, LINE, samples=4, sigma_min=0.125)
    after = planner.update(planner.init(1), numbers(0.25, 0.25, 0.25, 0.25), torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 0)
    momentum = planner.momentum
    assert after.mean.item() == pytest.approx((1 - momentum) * 0.25)
    assert after.std.item() == (0.5 if name == "shooting" else 0.125)


@GAUSSIAN
def test_without_a_finite_energy_the_search_stays_where_it_is(name: str) -> None:
    planner = make_planner(name, LINE, samples=3)
    before = replace(planner.init(1), mean=torch.full((1, 1, 1), 0.3))
    after = planner.update(before, numbers(0.1, 0.2, 0.9), torch.full((1, 3), torch.inf), 0)
    assert torch.equal(after.mean, before.mean) and torch.equal(after.std, before.std)


@pytest.mark.parametrize(
    ("samples", "elites", "count"), [(2, 0.1, 2), (10, 0.1, 2), (25, 0.1, 2), (26, 0.1, 3), (256, 0.1, 26), (9, 1.0, 9)]
)
def test_two_elites_at_least(samples: int, elites: float, count: int) -> None:
    assert CEM(space=LINE, samples=samples, elites=elites).elite_count == count


def test_cem_refits_to_two_elites_worked_out_by_hand() -> None:
    planner = CEM(space=LINE, samples=4, elites=0.5)
    after = planner.update(planner.init(1), numbers(0.9, 0.2, -0.9, 0.4), torch.tensor([[3.0, 1.0, 4.0, 2.0]]), 0)
    one, two = math.log(2.5), math.log(2.5) - math.log(2)
    mean = (one * 0.2 + two * 0.4) / (one + two)
    assert after.mean.item() == pytest.approx(mean)
    variance = (one * (0.2 - mean) ** 2 + two * (0.4 - mean) ** 2) / (one + two)
    assert after.std.item() == pytest.approx(math.sqrt(variance))


def test_one_sample_is_the_mean_in_every_iteration() -> None:
    seen, candidates = watched(square(0.5))
    planner = make_planner("shooting", LINE, samples=1, iterations=3)
    assert planner.plan(seen, planner.init(2)).stats.evaluations == 3
    assert all((actions == 0).all() and actions.shape == (2, 1, 1, 1) for actions in candidates)


def test_shooting_moves_towards_the_best() -> None:
    planner = RandomShooting(space=LINE, samples=3, momentum=0.25)
    state = replace(planner.init(1), mean=torch.full((1, 1, 1), 0.1))
    after = planner.update(state, numbers(0.9, 0.4, -0.9), torch.tensor([[3.0, 1.0, 2.0]]), 0)
    assert after.mean.item() == pytest.approx(0.25 * 0.1 + 0.75 * 0.4) and torch.equal(after.std, state.std)


def test_one_finite_energy_has_all_the_weight_however_small_the_shares() -> None:
    energies = torch.tensor([[torch.inf, 5.0, torch.inf]])
    assert by_rank(energies, torch.tensor([1e-20, 0.0])).tolist() == [[0.0, 1.0, 0.0]]


# iCEM


def test_icem_keeps_the_best_the_very_best_first() -> None:
    planner = ICEM(space=LINE, samples=10, elites=0.4, keep=0.5)
    knots = numbers(*(i / 10 for i in range(10)))
    energies = torch.tensor([[5.0, 1.0, 9.0, 0.0, 7.0, 3.0, 8.0, 2.0, 6.0, 4.0]])
    after = planner.update(planner.init(1), knots, energies, 0)
    assert torch.equal(after.kept, numbers(0.3, 0.1))


def test_icem_offers_what_it_kept_once_more_and_then_its_mean() -> None:
    planner = ICEM(space=LINE, samples=8, elites=0.5, keep=0.5, iterations=3, decay=1.0)
    energy, seen = watched(square(0.31))
    plan = planner.plan(energy, planner.init(1))
    for earlier, later in itertools.pairwise(seen):
        best = earlier.flatten()[(earlier.flatten() - 0.31).square().argsort()[:2]]
        assert torch.equal(later.flatten()[:2], best) and later.shape[1] == 8
    assert plan.state.kept.shape == (1, 2, 1, 1)
    warm, first = replace(plan.state, mean=torch.full((1, 1, 1), 0.125)), seen
    energy, seen = watched(square(0.31))
    planner.plan(energy, warm)
    assert torch.equal(seen[0].flatten()[:3], torch.tensor([*plan.state.kept.flatten(), 0.125]))
    assert seen[0].shape == first[0].shape


@pytest.mark.parametrize(
    ("elites", "decay", "sizes"), [(0.1, 2.0, [20, 10, 5, 4]), (0.4, 2.0, [20, 16, 16, 16]), (1.0, 4.0, [20] * 4)]
)
def test_icem_shrinks_to_twice_its_elites(elites: float, decay: float, sizes: list[int]) -> None:
    planner = ICEM(space=LINE, samples=20, iterations=4, elites=elites, decay=decay)
    energy, seen = watched(square(0.0))
    planner.plan(energy, planner.init(1))
    assert [actions.shape[1] for actions in seen] == sizes


# MPPI


@pytest.mark.parametrize("target", [1.2, 1.5, 1.8, 1.95])
@pytest.mark.parametrize("gap", [1e-20, 3.0, 1e20])
def test_the_temperature_of_two_samples_is_known(target: float, gap: float) -> None:
    """(1 + w)^2 / (1 + w^2) = target, w = exp(-gap / temperature), is a quadratic equation."""
    excess = target - 1
    weight = (1 - math.sqrt(1 - excess**2)) / excess
    for above in ([0.0, gap], [1e7 * gap, gap, 0.0]):  # of the third nothing is left
        found = temperature_for(torch.tensor([above]), target).item()
        assert found == pytest.approx(gap / -math.log(weight), rel=0.01)


def test_few_samples_have_an_effective_size_of_one_and_a_half() -> None:
    energies = torch.tensor([[4.0, 1.0, 3.0, 2.0, 9.0, 8.0, 7.0, 6.0]])
    weights = MPPI(space=LINE, samples=8, effective=0.1).weights(energies)
    assert 1 / weights.square().sum().item() == pytest.approx(1.5, rel=0.01)
    assert weights.argmax().item() == 1 and weights.sum().item() == pytest.approx(1.0)
    more = MPPI(space=LINE, samples=8, effective=0.5).weights(energies)
    assert 1 / more.square().sum().item() == pytest.approx(4.0, rel=0.02)


def test_where_every_temperature_has_the_effective_size_wanted_equals_are_equal() -> None:
    energies = torch.tensor([[3.0, 3.0, torch.inf, torch.inf]])
    assert MPPI(space=LINE, samples=4, effective=0.5).weights(energies).tolist() == [[0.5, 0.5, 0.0, 0.0]]


def test_a_fixed_temperature_needs_no_finite_energy() -> None:
    assert MPPI(space=LINE, temperature=1.0).weights(torch.full((1, 3), torch.inf)).tolist() == [[0.0] * 3]


# Gradients


def slope(knots: Tensor) -> Tensor:
    return knots.sum((-1, -2))


@pytest.mark.parametrize(
    ("iterations", "refine", "first"),
    [(20, 0.7, 6), (12, 0.7, 4), (10, 0.01, 9), (3, 0.9, 1), (2, 0.5, 1), (1, 0.5, 1), (4, 0.5, 2)],
)
def test_when_cem_gives_way_to_the_gradient(iterations: int, refine: float, first: int) -> None:
    planner = CEMGradient(space=LINE, iterations=iterations, refine=refine)
    assert planner.first_gradient == first
    plan = planner.plan(square(0.3), planner.init(1))
    assert plan.stats.iterations == iterations and plan.energy.item() < 1e-3
    tensors = (plan.actions, plan.energy, *plan.state.tensors().values())
    assert not any(tensor.requires_grad for tensor in tensors)


def test_the_gradient_refines_the_mean_beside_what_was_kept() -> None:
    planner = CEMGradient(space=LINE, samples=10, elites=0.4, keep=0.5, iterations=4, refine=0.5)
    state = replace(planner.init(1), mean=torch.full((1, 1, 1), 0.7), kept=numbers(0.1, 0.2))
    assert torch.equal(planner.propose(state, torch.zeros(1, 10, 1, 1), 2), numbers(0.7, 0.1, 0.2))
    assert torch.equal(planner.propose(state, torch.zeros(1, 10, 1, 1), 3), state.kept)
    assert planner.propose(state, torch.zeros(1, 10, 1, 1), 1).shape[1] == 8  # 10 / decay of CEM's own


def test_the_steps_of_a_refinement_fall_along_a_half_cosine() -> None:
    """On a constant slope Adam's steps are its rate: all of it, three quarters, a quarter in three steps."""
    planner = CEMGradient(
        space=LINE, samples=10, elites=0.4, keep=0.5, iterations=5, refine=0.6, learning_rate=0.01, sigma=0.1
    )
    energy, seen = watched(slope)
    plan = planner.plan(energy, planner.init(1))
    assert [actions.shape[1] for actions in seen] == [10, 8, 3, 3, 3]
    steps = [after - before for before, after in zip(seen[2:], [*seen[3:], plan.state.kept], strict=True)]
    for step, share in zip(steps, (1.0, 0.75, 0.25), strict=True):
        torch.testing.assert_close(step, torch.full_like(step, -0.01 * share), atol=2e-6, rtol=0)
    assert plan.state.mean.item() == plan.state.kept.min().item()  # where the lowest went
    assert plan.energy.item() == seen[-1].min().item()


def test_a_gradient_starts_from_the_mean_the_previous_plan_and_samples_around() -> None:
    planner = Gradient(space=LINE, samples=8, iterations=2, learning_rate=0.125)
    state = replace(planner.init(1), mean=torch.full((1, 1, 1), 0.25), best=torch.full((1, 1, 1), 0.375))
    energy, seen = watched(slope)
    plan = planner.plan(energy, state)
    assert seen[0].shape[1] == 8 and len(set(seen[0].flatten().tolist())) == 8
    assert seen[0].flatten()[0] == 0.25 and seen[0].flatten()[-1] == 0.375
    torch.testing.assert_close(seen[1], (seen[0] - 0.125).clamp(-1, 1), atol=1e-6, rtol=0)
    torch.testing.assert_close(plan.state.kept, (seen[1] - 0.0625).clamp(-1, 1), atol=1e-6, rtol=0)
    assert planner.first_gradient == 0
    wild = planner.propose(state, numbers(0.0, 9.0, -9.0), 0)
    assert torch.equal(wild, numbers(0.25, 1.0, -1.0))


@pytest.mark.parametrize(
    ("energy", "moves"),
    [
        (lambda x: 1e20 * slope(x), -0.1),  # whose square is not finite
        (lambda x: 1e-4 * slope(x), -0.1),
        (lambda x: -slope(x), 0.1),
        (lambda x: slope(x) + (slope(x) * 0).sqrt(), 0.0),  # NaN
        (lambda x: (slope(x) - 0.5).sqrt(), 0.0),  # infinite
        (lambda x: -(slope(x) - 0.5).sqrt(), 0.0),
        (lambda x: 1e-8 * slope(x), -0.05),  # as small as what Adam adds to the root of its second moment
    ],
)
def test_a_step_of_adam_is_the_rate_downhill_or_nothing(energy: Callable[[Tensor], Tensor], moves: float) -> None:
    knots = numbers(0.5).requires_grad_()
    state = CEM(space=LINE).init(1)
    after = adam_step(state, knots, energy(knots), 0, 10, 0.1)
    assert after.kept.item() == pytest.approx(0.5 + moves, abs=1e-4 if moves else 0)


def test_adam_projects_on_the_box_and_follows_the_best() -> None:
    knots = numbers(0.95, -0.95, 0.4).requires_grad_()
    signs, offsets = torch.tensor([-1.0, 1.0, 1.0]), torch.tensor([3.0, 2.0, 0.0])
    energies = signs * slope(knots) + offsets
    after = adam_step(CEM(space=LINE).init(1), knots, energies, 0, 10, 0.1)
    torch.testing.assert_close(after.kept, numbers(1.0, -1.0, 0.3))
    assert after.mean.item() == pytest.approx(0.3)
    assert not after.kept.requires_grad
    first, second = after.scratch
    torch.testing.assert_close(first, 0.1 * numbers(-1.0, 1.0, 1.0))
    torch.testing.assert_close(second, 0.001 * torch.ones(1, 3, 1, 1))


# What every plan does


@EVERY
@pytest.mark.parametrize("samples", [6, 7])
def test_the_first_candidates_are_the_mean_its_mirrored_samples_and_the_previous_plan(name: str, samples: int) -> None:
    planner = make_planner(name, LINE, samples=samples, iterations=2, sigma=0.05)
    narrow = torch.full((1, 1, 1), 1e-6)  # what the plan before ended with
    state = replace(planner.init(1, 3), mean=torch.full((1, 1, 1), 0.25), best=-torch.ones(1, 1, 1), std=narrow)
    energy, seen = watched(square(0.2))
    planner.plan(energy, state)
    first = seen[0].flatten()
    assert len(first) == samples and first[0] == 0.25 and first[-1] == -1
    torch.testing.assert_close(first[1] - 0.25, 0.25 - first[2])
    torch.testing.assert_close(first[3] - 0.25, 0.25 - first[4])
    spread = first[[1, 3]] - 0.25
    assert (spread.abs() > 1e-4).all() and spread.abs().max() < 0.25  # of sigma, not of the state


def test_offers_replace_the_last_samples() -> None:
    planner = CEM(space=LINE, samples=8, iterations=1)
    asked: list[int] = []

    def offer(value: float) -> Callable[[PlanState, int], Tensor]:
        return lambda state, n: (asked.append(n), torch.full((1, n, 1, 1), value))[1]

    state = replace(planner.init(1), best=torch.full((1, 1, 1), 0.5))
    for fractions, last in (
        ((0.3, 0.1), [0.5, -1.0, -1.0, 1.0]),  # 2.4 and 0.8 samples
        ((0.5, 0.5), [-1.0] * 4 + [1.0] * 4),  # all: no mean, no previous plan
        ((0.7, 0.6), [-1.0] * 6 + [1.0] * 5),  # and more
        ((0.5, 0.375), [0.5] + [-1.0] * 4 + [1.0] * 3),  # one place left: the previous plan's
    ):
        energy, seen = watched(square(0.2))
        proposals = [Proposal(offer(value), f) for value, f in zip((-1.0, 1.0), fractions, strict=True)]
        plan = planner.plan(energy, state, proposals=proposals)
        count = max(8, len(last))
        assert seen[0].shape[1] == count == plan.stats.evaluations
        assert seen[0].flatten()[-len(last) :].tolist() == last
    assert asked == [2, 1, 4, 4, 6, 5, 4, 3]


def test_the_best_of_all_iterations_is_the_plan_and_an_early_one_of_equals() -> None:
    class Fixed(Planner):
        """Candidates that are known: 0.1, 0.2, then 0.3, 0.4, and so on."""

        def propose(self, state: PlanState, noise: Tensor, iteration: int) -> Tensor:
            return numbers(0.2 * iteration + 0.1, 0.2 * iteration + 0.2)

        def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
            return replace(state, mean=knots[:, 1])

    def table(values: Mapping[float, float]) -> Callable[[Tensor], Tensor]:
        energies = {round(key, 3): value for key, value in values.items()}
        return lambda actions: torch.tensor([[energies.get(round(a, 3), 9.0) for a in actions.flatten().tolist()]])

    planner = Fixed(space=LINE, samples=2, iterations=3)
    inf, nan = math.inf, math.nan
    for execute, values, found, energy in (
        ("best", {0.1: 5, 0.4: 2, 0.5: 3}, 0.4, 2.0),
        ("best", {0.1: 2, 0.5: 2}, 0.1, 2.0),
        ("best", {0.1: 2, 0.3: -inf, 0.4: nan, 0.5: inf}, 0.1, 2.0),
        ("mean", {0.1: 2, 0.6: 7}, 0.6, 7.0),
        ("mean", {0.1: 2, 0.6: nan}, 0.1, 2.0),
        ("mean", {0.1: 2, 0.6: -inf}, 0.1, 2.0),
    ):
        chosen: Execute = execute  # pyright: ignore[reportAssignmentType]
        plan = replace(planner, execute=chosen).plan(table(values), planner.init(1))
        assert (plan.actions.item(), plan.energy.item()) == (pytest.approx(found), energy)
        assert plan.state.best.item() == pytest.approx(found)
        assert plan.stats.evaluations == (7 if execute == "mean" else 6) and plan.stats.iterations == 3
        assert plan.stats.violations is None and plan.stats.searched is None and not plan.stats.compiled


@EVERY
def test_where_half_is_at_hand_half_is_searched_and_counted(name: str) -> None:
    planner = make_planner(name, LINE, samples=8, iterations=3, replan_above=0.25)
    state = replace(planner.init(2), best=torch.tensor([0.5, 1.0])[:, None, None], count=1)
    plan = planner.plan(square(0.0), state)  # 0.25 is enough, 1 is not
    alone = replace(planner, replan_above=-math.inf).plan(square(0.0), state)
    assert plan.status == (Status.REUSED, Status.OK) and plan.timing is Status.OK
    assert plan.stats.evaluations == 1 + alone.stats.evaluations / 2
    assert plan.actions[0].item() == 0.5 and plan.energy[0].item() == 0.25
    assert torch.equal(plan.actions[1], alone.actions[1]) and plan.state.count == 2
    assert plan.state.mean[0].item() == 0.5 and torch.equal(plan.state.mean[1], alone.state.mean[1])
    assert plan.state.seeds == (0, 1)

    content = planner.plan(square(0.0), replace(state, best=torch.zeros(2, 1, 1)))
    assert content.timing is Status.REUSED and content.stats.iterations == 0

    everything = [Proposal(lambda state, n: torch.full((2, n, 1, 1), 0.5), 1.0)]
    assert planner.plan(square(0.0), state, proposals=everything).status == (Status.OK,) * 2  # a look would be all
    assert planner.plan(square(0.0), replace(state, count=0)).status == (Status.OK,) * 2


def test_what_a_status_says() -> None:
    energy = torch.tensor([1.0, torch.inf, torch.inf, 1.0])
    state = CEM(space=LINE).init(4)
    for timing, searched, violations, expected in (
        (Status.OK, None, None, (Status.OK, Status.NO_FINITE_ENERGY, Status.NO_FINITE_ENERGY, Status.OK)),
        (Status.OK, None, [0, 0, 1, 2], (Status.OK, Status.NO_FINITE_ENERGY, *[Status.INFEASIBLE] * 2)),
        (Status.DEADLINE, [1, 1, 1, 0], None, (Status.DEADLINE, *[Status.NO_FINITE_ENERGY] * 2, Status.REUSED)),
        (Status.LATE, [1, 1, 1, 0], None, (Status.LATE, *[Status.NO_FINITE_ENERGY] * 2, Status.LATE)),
    ):
        stats = PlanStats(
            *(1, 2, 0.0, None if violations is None else torch.tensor(violations)),
            searched=None if searched is None else torch.tensor(searched).bool(),
        )
        assert Plan(torch.zeros(4, 1, 1), energy, stats, state, timing).status == expected and not stats.compiled


def test_a_state_comes_back_from_its_tensors() -> None:
    planner = ICEM(space=LINE, samples=20)
    state = planner.plan(square(0.3), planner.plan(square(0.3), planner.init(2, [5, 2**40])).state).state
    back = PlanState.from_tensors(state.tensors())
    assert (back.seeds, back.count) == ((5, 2**40), 2) and back.scratch == ()
    assert all(torch.equal(back.tensors()[name], value) for name, value in state.tensors().items())
    assert planner.init(3, 7).seeds == (7, 8, 9) and planner.init(2).seeds == (0, 1)


# Clocks


class Clock:
    """Stands still but for what is done: the seconds that one evaluation after the other takes."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.seconds = 8.0, list(seconds)

    def __call__(self) -> float:
        return self.now

    def energy(self, actions: Tensor) -> Tensor:
        self.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        return actions.square().sum((-1, -2))


@EVERY
@pytest.mark.parametrize(
    ("execute", "seconds", "deadline", "iterations", "elapsed", "status"),
    [
        ("best", [0.25], 0.75, 3, 0.75, Status.DEADLINE),  # to the last moment
        ("best", [0.25], 0.875, 3, 0.75, Status.DEADLINE),
        ("best", [0.25], 1.0, 4, 1.0, Status.OK),
        ("best", [0.5, 0.125], 0.875, 1, 0.5, Status.DEADLINE),  # the longest so far would not fit
        ("best", [0.5, 0.125], 1.0, 2, 0.625, Status.DEADLINE),
        ("best", [0.125, 0.5], 1.0, 2, 0.625, Status.DEADLINE),
        ("mean", [0.25], 0.75, 2, 0.75, Status.DEADLINE),  # the mean's evaluation must fit as well
        ("mean", [0.25], 0.875, 2, 0.75, Status.DEADLINE),
        ("mean", [0.25], 1.25, 4, 1.25, Status.OK),
        ("mean", [0.25], 0.5, 1, 0.5, Status.DEADLINE),
        ("mean", [0.25], 0.375, 1, 0.5, Status.LATE),
        ("best", [0.25], 0.125, 1, 0.25, Status.LATE),
    ],
)
def test_a_deadline_stops_what_would_not_fit(
    name: str, execute: Execute, seconds: list[float], deadline: float, iterations: int, elapsed: float, status: Status
) -> None:
    planner, clock = make_planner(name, LINE, samples=4, iterations=4, execute=execute), Clock(*seconds)
    plan = planner.plan(clock.energy, planner.init(1), deadline=deadline, clock=clock)
    assert (plan.stats.iterations, plan.stats.elapsed, plan.status) == (iterations, elapsed, (status,))


def agent(planner: Planner, clock: Clock, encoding: Sequence[float], **settings: Any) -> Agent:
    left = list(encoding)

    def make_energy(observation: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
        del observation
        clock.now += left.pop(0)
        return clock.energy

    return Agent(planner, make_energy, clock=clock, **settings)


def test_encoding_takes_of_the_time_to_plan() -> None:
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=4, chunk=2)
    clock = Clock(0.25)
    plans = agent(CEM(space=space, samples=4, iterations=4), clock, [0.5, 0.125, 2.0], deadline=1.0)
    for iterations, seconds in ((2, 1.0), (3, 0.875), (1, 2.25)):
        assert plans.act({}).shape == (1, 2, 1)
        assert plans.last_plan is not None and plans.last_plan.stats.iterations == iterations
        assert plans.plan_seconds[-1] == seconds
    assert plans.misses == 1


@pytest.mark.parametrize(("steps", "rest"), [(1, [0.2]), (2, [0.3, 0.4]), (3, [0.4, 0.4, 0.4])])
def test_the_rest_of_a_plan_ends_in_its_last_action_held(steps: int, rest: list[float]) -> None:
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=4)
    planner = RandomShooting(space=space, samples=1, iterations=1)
    offered = torch.tensor([0.1, 0.2, 0.3, 0.4])[None, None, :, None]
    settings = {"execute_steps": steps, "make_proposals": lambda _: [Proposal(lambda state, n: offered, 1.0)]}
    late = agent(planner, Clock(0.0), [9.0, 0.0, 9.0], deadline=1.0, **settings)
    first = late.act({})  # late, but there is nothing else to do
    assert late.misses == 1
    torch.testing.assert_close(first.flatten(), offered.flatten()[:steps])
    late.act({})
    torch.testing.assert_close(late.act({}).flatten(), torch.tensor(rest))
    assert late.misses == 2


def test_how_many_steps_are_executed() -> None:
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=6, chunk=3)
    planner = CEM(space=space, samples=4)
    assert Agent(planner, lambda _: square(0.0)).act({}).shape == (1, 3, 1)
    for steps in (1, 6):
        assert Agent(planner, lambda _: square(0.0), execute_steps=steps).act({}).shape == (1, steps, 1)
    for steps in (-1, 7):
        with pytest.raises(ValueError, match=f"execute_steps={steps} must lie in 1 … steps=6"):
            Agent(planner, lambda _: square(0.0), execute_steps=steps)
    assert Agent(planner, lambda _: square(0.0)).state.seeds == (0,)
    fresh = Agent(planner, lambda _: square(0.0), 2, [4, 6])
    assert set(fresh.tensors()) == {"mean", "std", "best", "kept", "seeds", "count"} and fresh.state.seeds == (4, 6)
    fresh.act({})
    assert set(fresh.tensors()) > {"rest", "previous"}
    fresh.reset()
    assert fresh.state.seeds == (0, 1)
    fresh.reset(3)
    assert (
        fresh.state.seeds == (3, 4)
        and fresh.misses == 0
        and not fresh.plan_seconds
        and fresh.last_plan is None
        and "rest" not in fresh.tensors()
    )


# Splines, slew rates and seeds


def test_the_cubic_is_hermites_with_finite_differences() -> None:
    """Half-way between knots: the mean of the two, and an eighth of the difference of their slopes."""
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=7, knots=4, spline="cubic")
    knots = torch.tensor([0.1, 0.5, -0.3, 0.2])
    slopes = torch.tensor([0.4, (-0.3 - 0.1) / 2, (0.2 - 0.5) / 2, 0.5])
    actions = space.expand(knots[:, None])[:, 0]
    torch.testing.assert_close(actions[::2], knots)
    torch.testing.assert_close(actions[1::2], (knots[:-1] + knots[1:]) / 2 + (slopes[:-1] - slopes[1:]) / 8)


def test_the_cubic_between_knots_that_lie_on_a_parabola_lies_on_it() -> None:
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=31, knots=7, spline="cubic")
    time = torch.linspace(-0.9, 0.9, 31)
    actions = space.expand(time[::5, None].square())[:, 0]
    torch.testing.assert_close(actions[5:-5], time[5:-5].square())  # at its ends slopes are one-sided
    assert (actions[1:5] - time[1:5].square()).abs().min() > 1e-4


@pytest.mark.parametrize("spline", ["linear", "cubic"])
def test_one_knot_is_held(spline: Any) -> None:
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=5, knots=1, spline=spline)
    assert space.expand(torch.full((1, 1), 0.25)).flatten().tolist() == [0.25] * 5


def test_linear_knots_need_not_fall_on_steps() -> None:
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=4, knots=3, spline="linear")
    torch.testing.assert_close(
        space.expand(torch.tensor([[0.0], [0.9], [0.3]])).flatten(), torch.tensor([0.0, 0.6, 0.7, 0.3])
    )


def test_units_are_the_environments_own() -> None:
    space = ActionSpace(low=torch.tensor([1.0, -4.0]), high=torch.tensor([3.0, 0.0]), steps=1)
    assert space.size == 2
    assert space.expand(torch.tensor([[0.5, -0.25]])).tolist() == [[2.5, -2.5]]
    assert space.fit(torch.tensor([[2.5, -2.5]])).tolist() == [[0.5, -0.25]]
    beyond = space.fit(torch.tensor([[9.0, -9.0]]))
    assert beyond.tolist() == [[1.0, -1.0]]
    assert space.fit(torch.tensor([[torch.inf, -torch.inf]])).tolist() == [[0.0, 0.0]]
    assert space.fit(torch.tensor([[torch.nan, -2.0]])).tolist() == [[0.0, 0.0]]


def test_a_slew_rate_counts_from_where_the_last_action_can_have_been() -> None:
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=3, slew=torch.tensor([0.25]))
    wanted = torch.tensor([-1.0, -1.0, 1.0])[None, :, None]
    assert space.limit(wanted, torch.tensor([[5.0]])).flatten().tolist() == [0.75, 0.5, 0.75]
    assert space.limit(wanted, torch.tensor([[-5.0]])).flatten().tolist() == [-1.0, -1.0, -0.75]
    assert space.limit(wanted).flatten().tolist() == [-1.0, -1.0, -0.75]  # nothing was executed yet


def test_a_space_moves_between_devices_whole() -> None:
    space = ActionSpace(low=-torch.ones(2), high=torch.ones(2), steps=6, chunk=2, slew=torch.ones(2), spline="cubic")
    moved = CEM(space=space, samples=7).to("cpu")
    assert moved.samples == 7 and moved.space.slew is space.slew and replace(space, slew=None).to("cpu").slew is None
    assert (moved.space.steps, moved.space.chunk, moved.space.knots, moved.space.spline) == (6, 2, 3, "cubic")


@pytest.mark.parametrize("spline", ["linear", "cubic"])
def test_a_shifted_plan_stays_in_the_box(spline: Any) -> None:
    """Least squares alone would leave it."""
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=12, knots=4, spline=spline)
    corners = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))[..., None]
    shifted = torch.stack([space.shift(corners, executed) for executed in range(12)])
    assert shifted.max() == 1 and shifted.min() == -1
    inside = space.shift(0.1 * corners, 1)
    assert (10 * inside).abs().max() > 1.01


def test_a_plan_shifted_by_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="executed=-1"):
        LINE.shift(torch.zeros(1, 1), -1)


def test_seeds_are_mixed_as_published() -> None:
    """SplitMix64 from 1234567, the first of the reference implementation's numbers."""
    assert _splitmix(1234567) == 6457827717110365317
    assert _splitmix(1234567 + 0x9E3779B97F4A7C15) == 3203168211198807973
    assert _mix(3, 5) == _splitmix(_splitmix(3) ^ 5) < 1 << 64
    assert _splitmix((1 << 64) - 1) < 1 << 64


def test_noise_is_that_of_torchs_generator() -> None:
    space = ActionSpace(low=torch.zeros(2), high=torch.ones(2), steps=3)
    noise = space.noise([11, 12], 4, (2, 5))
    for b, seed in enumerate((11, 12)):
        generator = torch.Generator().manual_seed(_mix(seed, 4))
        assert torch.equal(noise[:, b], torch.randn(2, 5, 3, 2, generator=generator))


# Energies


def test_what_lies_on_a_bound_keeps_it() -> None:
    """One step a candidate: on a face, in a corner, just inside; at a limit, just beyond."""
    box = KeepOut(lambda actions: actions, True, torch.zeros(3), torch.ones(3))
    points = torch.tensor([[0.0, 0.5, 0.5], [1.0, 1.0, 1.0], [0.01, 0.5, 0.99]])[None, :, None]
    assert box.violations(points).tolist() == [[0, 0, 1]]
    assert box(points).tolist() == [[0.0, 0.0, math.inf]]
    angles = Limits(lambda actions: actions, True, torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 2.0]))
    values = torch.tensor([[1.0, 0.0], [-1.0, 2.0], [0.0, 2.01], [-1.01, 1.0]])[None, :, None]
    assert angles.violations(values).tolist() == [[0, 0, 1, 1]]
    assert angles(values).tolist() == [[0.0, 0.0, math.inf, math.inf]]


def test_effort_is_summed_over_actions_and_averaged_over_time() -> None:
    actions = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0], [0.0, 0.0]])[None, None]
    assert ControlEnergy()(actions).item() == (1 + 4 + 9) / 4
    assert ControlEnergy(smooth=3.0)(actions).item() == (1 + 4 + 9) / 4 + 3 * (4 + 4 + 9) / 3


def test_violations_of_a_sum_add_up_over_its_constraints() -> None:
    def limits(high: float) -> Limits:
        return Limits(lambda actions: actions, False, torch.full((1,), -9.0), torch.full((1,), high))

    actions = torch.tensor([0.5, 1.5, 2.5])[None, None, :, None]
    both = limits(1.0) + ControlEnergy() + 2 * limits(2.0)
    count = both.violations(actions)
    assert count is not None and count.tolist() == [[3]]
    assert both(actions).item() == pytest.approx(0.5 + 1.5 + (0.25 + 2.25 + 6.25) / 3 + 2 * 0.5)
    assert (ControlEnergy() + square(0.0)).violations(actions) is None
    off = (limits(1.0) + 0 * limits(2.0)).violations(actions)
    assert off is not None and off.tolist() == [[2]]


def test_what_a_latent_energy_adds_unless_it_is_told() -> None:
    """Two members that imagine 1 and 3 where the goal is 0: distances 1 and 9, whose deviation is 4."""
    model: Any = SimpleNamespace(rollout=lambda z, actions: torch.tensor([1.0, 3.0])[:, None, None, None, None])
    place = torch.zeros(1, 1)
    actions = torch.zeros(1, 1, 1, 1)
    cases: list[tuple[dict[str, Any], float]] = [
        ({"reduce": "final"}, 5.0),
        ({}, 5.5),
        ({"reduce": "path", "final_weight": 1.0}, 10.0),
        ({"reduce": "final", "ensemble": "mean_std"}, 9.0),
        ({"reduce": "final", "ensemble": "mean_std", "ensemble_k": 0.5}, 7.0),
        ({"reduce": "final", "disagreement": 2.0}, 7.0),
        ({"reduce": "final", "metric": lambda z: z - 1}, 5.0),  # of both, so that nothing changes
        ({"reduce": "final", "metric": lambda z: 2 * z}, 20.0),
    ]
    for settings, energy in cases:
        energies = LatentEnergy(model, place, place, **settings)
        assert energies(actions).item() == pytest.approx(energy)


# Problems


def test_linear_quadratic_costs_are_those_of_a_simulation() -> None:
    """Position and velocity of each point, stepped by hand; the second of two is ten times as sensitive."""
    for problem, gains in ((double_integrator(), [1.0]), (stiff_double_integrator(), [1.0, 10.0])):
        u = 4 * torch.randn(2, 3, 20, len(gains), generator=torch.Generator().manual_seed(0)).double()
        cost = 0.1 * u.square().sum((-1, -2))
        for point, gain in enumerate(gains):
            position, velocity = torch.ones(2, 3).double(), torch.zeros(2, 3).double()
            for step in range(20):
                cost += position.square() + 0.1 * velocity.square()
                position, velocity = position + 0.1 * velocity, velocity + 0.1 * gain * u[:, :, step, point]
            cost += 10 * position.square() + velocity.square()
        torch.testing.assert_close(problem.energy(u), cost, rtol=1e-5, atol=1e-3)
        assert (problem.space.low == -4).all() and (problem.space.high == 4).all() and problem.space.size == len(gains)
        assert PROBLEMS[problem.name]().optimum == problem.optimum


def test_riccati_worked_out_by_hand() -> None:
    """1 + p - p^2 / (1 + p), from p = 1."""
    one = torch.ones(1, 1)
    for steps, cost in ((0, 1.0), (1, 1.5), (2, 1.6)):
        assert riccati(one, one, one, one, one, torch.tensor([2.0]), steps) == pytest.approx(4 * cost)
    assert riccati(2 * one, 3 * one, 5 * one, 7 * one, 11 * one, one[0], 1) == pytest.approx(5 + 44 - 66**2 / 106)


def test_the_corridor_is_driven_by_hand() -> None:
    problem = corridor(steps=8, goal=0.25)
    u = 0.25 * (2 * torch.rand(1, 50, 8, 1, generator=torch.Generator().manual_seed(0)) - 1)
    costs = []
    for path in u[0, :, :, 0].tolist():
        y, cost = 0.0, 0.0
        for step, move in enumerate(path, start=1):
            y, cost = y + move, cost + 10 * move**2
            low, high = {2: (-0.6, 0.3), 4: (-0.2, 0.7), 6: (-0.8, 0.2)}.get(step, (9.0, 9.0))
            cost += 100 * max(0.0, min(y - low, high - y))
        costs.append(cost + 10 * (y - 0.25) ** 2)
    torch.testing.assert_close(problem.energy(u)[0], torch.tensor(costs))
    assert (problem.space.low.item(), problem.space.high.item(), problem.space.steps) == (-0.25, 0.25, 8)


@pytest.mark.parametrize("goal", [-0.9, 0.5])
def test_the_taut_string_to_another_goal_is_what_is_found(goal: float) -> None:
    problem = corridor(steps=16, goal=goal)
    planner = ICEM(space=problem.space, samples=256, iterations=20, decay=1.05)
    lowest = planner.plan(problem.energy, planner.init(4)).energy.min().item()
    assert problem.optimum - 1e-4 < lowest < 1.02 * problem.optimum
