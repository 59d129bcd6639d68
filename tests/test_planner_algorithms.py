"""Every planner against problems whose optimum is known, and the mathematics of each."""

import math
from typing import Any

import pytest
import torch
from forearm.planner import CEM, ICEM, MPPI, ActionSpace, Gradient, Proposal, RandomShooting, make_planner
from forearm.planner.gaussian import by_rank
from forearm.planner.mppi import temperature_for
from forearm.planner.problems import PROBLEMS, double_integrator, stiff_double_integrator
from torch import Tensor

BUDGETS: dict[str, dict[str, Any]] = {
    "cem": {"samples": 256, "iterations": 12},
    "icem": {"samples": 256, "iterations": 16, "decay": 1.1},
    "mppi": {"samples": 256, "iterations": 12},
    "gradient": {"samples": 8, "iterations": 60},
    "cem_gradient": {"samples": 256, "iterations": 20},
    # Shooting does not narrow its search: it needs a small step and three times the evaluations for the same 1 %.
    "shooting": {"samples": 256, "iterations": 40, "sigma": 0.05, "sigma_min": 0.0},
}


@pytest.mark.parametrize("name", BUDGETS)
def test_lqr_within_one_per_cent_of_riccati(name: str) -> None:
    problem = double_integrator()
    planner = make_planner(name, problem.space, **BUDGETS[name])
    plan = planner.plan(problem.energy, planner.init(16))
    gap = plan.energy / problem.optimum - 1
    assert gap.max() < 0.01
    assert gap.min() > -1e-5  # the Riccati cost is a lower bound, or one of the two is wrong
    torch.testing.assert_close(problem.energy(plan.actions[:, None])[:, 0], plan.energy)


@pytest.mark.parametrize("problem", [double_integrator(), stiff_double_integrator()], ids=lambda p: p.name)
def test_riccati_is_what_newton_finds(problem: Any) -> None:
    """The energy is quadratic in the actions: one Newton step from zero is its unbounded minimum."""
    zero = torch.zeros(problem.space.steps * problem.space.size, dtype=torch.float64)

    def cost(u: Tensor) -> Tensor:
        return problem.energy(u.view(1, 1, problem.space.steps, -1))[0, 0]

    gradient: Any = torch.autograd.functional.jacobian(cost, zero)
    hessian: Any = torch.autograd.functional.hessian(cost, zero)
    minimum = -torch.linalg.solve(hessian, gradient)
    assert cost(minimum).item() == pytest.approx(problem.optimum, rel=1e-6)
    assert minimum.abs().max() < problem.space.high.max()  # so that the bounds do not bind


def test_corridor_within_five_per_cent_of_the_taut_string() -> None:
    problem = PROBLEMS["corridor"]()
    planner = ICEM(space=problem.space, samples=512, iterations=20, decay=1.05)
    energy = planner.plan(problem.energy, planner.init(16)).energy
    assert (energy > problem.optimum - 1e-4).all()
    assert (energy < 1.05 * problem.optimum).all()


def test_the_taut_string_is_what_dynamic_programming_finds() -> None:
    """Bellman's recursion over positions in steps of 2.5 mm, the rewards probed from the energy itself."""
    problem = PROBLEMS["corridor"]()
    steps, reach = problem.space.steps, 100
    y = torch.linspace(-1, 1, 801)
    moves = torch.arange(-reach, reach + 1) * 0.0025  # |u| <= 0.25
    effort = 10 * moves.square()

    def cost_of_being(step: int) -> Tensor:
        """What the energy adds for y at one step, (801,): jump there and back again, less the effort of jumping."""
        jump = torch.zeros(1, 801, steps, 1)
        jump[0, :, step, 0] = y
        if step + 1 < steps:
            jump[0, :, step + 1, 0] = -y
        empty = problem.energy(torch.zeros(1, 1, steps, 1))
        return (problem.energy(jump) - 10 * jump.square().sum((-1, -2)) - empty)[0]

    base = problem.energy(torch.zeros(1, 1, steps, 1)).item()
    value = torch.zeros(801)
    for step in reversed(range(steps)):
        value = torch.nn.functional.pad(value + cost_of_being(step), (reach, reach), value=torch.inf)
        value = (value.unfold(0, 2 * reach + 1, 1) + effort).amin(-1)
    assert value[400].item() + base == pytest.approx(problem.optimum, rel=2e-3)


def test_weights_by_rank_sum_to_one_and_give_nothing_to_the_infinite() -> None:
    inf = torch.inf
    energies = torch.tensor([[3.0, 1, 2, 4], [inf, 1, inf, inf], [inf] * 4, [2, 1, 2, 2], [5, 5, 5, 5]])
    expected = torch.tensor([[0, 0.75, 0.25, 0], [0, 1, 0, 0], [0] * 4, [1 / 6, 0.5, 1 / 6, 1 / 6], [0.25] * 4])
    torch.testing.assert_close(by_rank(energies, torch.tensor([3.0, 1.0, 0.0])), expected)


def test_cem_refits_to_the_elites_the_better_ones_more() -> None:
    space = ActionSpace(low=-torch.ones(2), high=torch.ones(2), steps=3)
    planner = CEM(space=space, samples=50, iterations=1, elites=0.2, sigma_min=0.0, momentum=0.25)
    state = planner.init(2)
    knots = planner.propose(state, space.noise(state.seeds, 0, (1, 50))[0], 0)
    energies = knots.square().sum((-1, -2))
    after = planner.update(state, knots, energies, 0)
    weights = torch.tensor([math.log(10.5) - math.log(rank) for rank in range(1, 11)])[:, None, None]
    weights /= weights.sum()
    for b in range(2):
        elites = knots[b, energies[b].argsort()[:10]]
        mean = (weights * elites).sum(0)
        torch.testing.assert_close(after.mean[b], 0.75 * mean)
        spread = (weights * (elites - mean).square()).sum(0).sqrt()
        torch.testing.assert_close(after.std[b], 0.25 * 0.5 + 0.75 * spread)


@pytest.mark.parametrize("name", ["cem", "icem", "mppi", "shooting"])
def test_a_flat_energy_does_not_narrow_the_search(name: str) -> None:
    """Where nothing is better than anything else, as before an object is touched, the spread must survive."""
    planner = make_planner(name, double_integrator().space, samples=200, iterations=8, sigma=0.3)
    plan = planner.plan(lambda actions: torch.ones(actions.shape[:2]), planner.init(2))
    assert (plan.state.std > 0.15).all()
    assert plan.state.mean.abs().max() < 0.25


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shape", ["normal", "outliers", "ties", "rejected"])
def test_mppi_hits_its_effective_sample_size(scale: float, shape: str) -> None:
    energies = torch.randn(16, 500, generator=torch.Generator().manual_seed(0))
    if shape == "outliers":
        energies[:, ::2] += 1e5
    if shape == "ties":
        energies = energies.round(decimals=1)
    if shape == "rejected":
        energies[:, ::3] = torch.inf
    planner = MPPI(space=double_integrator().space, samples=500, effective=0.1)
    weights = planner.weights(energies * scale)
    torch.testing.assert_close(weights.sum(1), torch.ones(16))
    size = 1 / weights.square().sum(1)
    torch.testing.assert_close(size, torch.full((16,), 50.0), rtol=0.02, atol=0)


def test_mppi_where_the_target_cannot_be_met() -> None:
    planner = MPPI(space=double_integrator().space, samples=8, effective=0.5)
    constant, few = torch.zeros(1, 8), torch.tensor([[1.0, 2] + [torch.inf] * 6])
    assert planner.weights(constant).tolist() == [[0.125] * 8]
    torch.testing.assert_close(planner.weights(few)[0, :2], torch.tensor([0.5, 0.5]), atol=0.01, rtol=0)
    assert planner.weights(few + torch.inf).tolist() == [[0.0] * 8]


def test_mppi_with_a_fixed_temperature_is_a_softmax() -> None:
    energies = torch.randn(4, 30, generator=torch.Generator().manual_seed(0))
    planner = MPPI(space=double_integrator().space, temperature=0.3)
    torch.testing.assert_close(planner.weights(energies), torch.softmax(-energies / 0.3, dim=1))


def test_temperature_grows_with_the_target() -> None:
    above = torch.rand(3, 100, generator=torch.Generator().manual_seed(0))
    above = above - above.amin(1, keepdim=True)
    found = torch.cat([temperature_for(above, target) for target in (2.0, 5.0, 20.0, 80.0)], dim=1)
    assert (found.diff(dim=1) > 0).all()


def test_icem_keeps_elites_and_decays() -> None:
    problem = double_integrator()
    planner = ICEM(space=problem.space, samples=100, iterations=4, decay=2.0, elites=0.1, keep=0.5)
    sizes: list[int] = []

    def energy(actions: Tensor) -> Tensor:
        sizes.append(actions.shape[1])
        return problem.energy(actions)

    plan = planner.plan(energy, planner.init(2))
    assert sizes == [100, 50, 25, 20]
    assert plan.stats.evaluations == sum(sizes)
    assert plan.state.kept.shape == (2, 5, 20, 1)
    again = planner.propose(plan.state, torch.zeros(2, 100, 20, 1), 0)
    assert torch.equal(again[:, :5], plan.state.kept)


def test_shooting_moves_to_the_best_sample_and_keeps_its_step() -> None:
    problem = double_integrator()
    planner = RandomShooting(space=problem.space, samples=64, iterations=1)
    plan = planner.plan(problem.energy, planner.init(3))
    assert torch.equal(plan.state.mean, plan.state.best)
    assert (plan.state.std == planner.sigma).all()


def test_gradient_follows_adam() -> None:
    """One candidate, inside the box: torch's own Adam takes the same steps."""
    space = ActionSpace(low=-torch.ones(2), high=torch.ones(2), steps=3)
    target = torch.linspace(-0.4, 0.4, 6).view(3, 2)

    def energy(actions: Tensor) -> Tensor:
        return (actions - target).square().sum((-1, -2)) + actions.sum((-1, -2)).pow(4)

    planner = Gradient(space=space, samples=2, iterations=10, learning_rate=0.05)
    seen: list[Tensor] = []
    planner.plan(lambda actions: (seen.append(actions[0, 0].detach().clone()), energy(actions))[1], planner.init(1))
    point = torch.zeros(3, 2, requires_grad=True)
    adam = torch.optim.Adam([point], lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=10)
    for visited in seen:
        torch.testing.assert_close(visited, point.detach(), atol=1e-6, rtol=0)
        adam.zero_grad()
        energy(point[None, None]).sum().backward()
        adam.step()
        schedule.step()


def test_gradient_needs_something_to_differentiate() -> None:
    problem = double_integrator()
    planner = Gradient(space=problem.space)
    with pytest.raises(ValueError, match="differentiate"):
        planner.plan(lambda actions: problem.energy(actions.detach()), planner.init(1))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cme", {}, "planner=cme is unknown; choose one of: cem, icem, mppi"),
        ("cem", {"sample": 3}, "sample=3: planner 'cem' has no such setting; choose from samples"),
        ("cem", {"samples": 1}, "samples=1"),
        ("cem", {"elites": 30}, "elites=30"),
        ("cem", {"execute": "median"}, "best, mean"),
        ("cem", {"momentum": 1.0}, "momentum=1.0"),
        ("icem", {"decay": 0.5}, "decay=0.5"),
        ("mppi", {"temperature": 0.0}, "temperature=0.0"),
        ("cem_gradient", {"refine": 20}, "refine=20"),
    ],
)
def test_wrong_settings_are_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_planner(name, double_integrator().space, **settings)


def test_one_sample_of_a_proposal_is_what_shooting_does() -> None:
    space = ActionSpace(low=-torch.ones(2), high=torch.ones(2), steps=4)
    planner = make_planner("shooting", space, samples=1, iterations=1)
    offered = torch.linspace(-0.9, 0.9, 8).view(1, 1, 4, 2)
    proposal = Proposal(lambda state, count: offered.expand(1, count, -1, -1), 1.0)
    plan = planner.plan(lambda actions: actions.square().sum((-1, -2)), planner.init(1), proposals=[proposal])
    torch.testing.assert_close(plan.actions, offered[0])
    assert plan.stats.evaluations == 1
