"""Energies: sums, latent distances, ensembles, constraints."""

from dataclasses import dataclass

import pytest
import torch
from forearm.planner import (
    CEM,
    ActionSpace,
    Agent,
    Clipped,
    ControlEnergy,
    KeepOut,
    LatentEnergy,
    Limits,
    Proposal,
    RandomShooting,
    Status,
    as_energy,
    weighted,
)
from torch import Tensor

ACTIONS = torch.randn(2, 5, 6, 3, generator=torch.Generator().manual_seed(0))


@dataclass
class Walk:
    """A model whose latent is the start plus the sum of the actions so far; members differ by their gain."""

    gains: tuple[float, ...] = ()

    def encode(self, observation: dict[str, Tensor]) -> Tensor:
        return observation["position"]

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        path = actions.cumsum(2)
        if not self.gains:
            return z[:, None, None] + path
        return torch.stack([z[:, None, None] + gain * path for gain in self.gains])


Z, GOAL = torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])


class Counting(Walk):
    """Counts how often it encodes and rolls out."""

    encoded = rolled = 0

    def encode(self, observation: dict[str, Tensor]) -> Tensor:
        self.encoded += 1
        return super().encode(observation)

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        self.rolled += 1
        return super().rollout(z, actions)


def test_the_agent_encodes_the_observation_once_a_plan_and_rolls_out_once_an_iteration() -> None:
    model = Counting()
    goal = model.encode({"position": GOAL})
    space = ActionSpace(low=-torch.ones(3), high=torch.ones(3), steps=6)
    agent = Agent(
        CEM(space=space, samples=50, iterations=7),
        lambda observation: LatentEnergy(model, model.encode(observation), goal),
        batch=2,
    )
    for _ in range(3):
        agent.act({"position": Z})
    assert (model.encoded, model.rolled) == (1 + 3, 3 * 7)


def squared_distances() -> Tensor:
    return (ACTIONS.cumsum(2) - GOAL[:, None, None]).square().mean(-1)


def test_energies_add_and_scale() -> None:
    effort, reach = ControlEnergy(), LatentEnergy(Walk(), Z, GOAL)

    def plain(actions: Tensor) -> Tensor:
        return actions[:, :, 0, 0]

    total = reach + 0.1 * effort + 2 * (effort * 3 + plain)
    expected = reach(ACTIONS) + 6.1 * effort(ACTIONS) + 2 * plain(ACTIONS)
    torch.testing.assert_close(total(ACTIONS), expected)
    torch.testing.assert_close((plain + effort)(ACTIONS), plain(ACTIONS) + effort(ACTIONS))
    named = weighted({"reach": reach, "effort": effort, "plain": plain}, {"reach": 1, "effort": 6.1, "plain": 2})
    torch.testing.assert_close(named(ACTIONS), expected)
    with pytest.raises(ValueError, match="'effrt': choose from effort, plain, reach"):
        weighted({"reach": reach, "effort": effort, "plain": plain}, {"effrt": 1.0})


def test_a_weight_of_zero_switches_off_even_what_is_infinite() -> None:
    never = as_energy(lambda actions: torch.full(actions.shape[:2], torch.inf))
    assert torch.equal((ControlEnergy() + 0 * never)(ACTIONS), ControlEnergy()(ACTIONS))


def test_a_clipped_energy_is_flat_above_its_limit_and_keeps_what_is_not_finite() -> None:
    values = torch.tensor([[0.1, 0.5, 2.0, torch.inf, torch.nan]]).expand(2, 5)
    energy = Clipped(lambda actions: values, 0.5) + ControlEnergy()
    expected = torch.tensor([[0.1, 0.5, 0.5, torch.inf, torch.nan]]) + ControlEnergy()(ACTIONS)
    torch.testing.assert_close(energy(ACTIONS), expected, equal_nan=True)
    box = KeepOut(lambda actions: actions, False, -torch.ones(3), torch.ones(3))
    count = Clipped(box + ControlEnergy(), 0.5).violations(ACTIONS)
    assert count is not None and torch.equal(count, box.violations(ACTIONS))
    with pytest.raises(ValueError, match=r"limit=0\.0 must be positive"):
        Clipped(ControlEnergy(), 0.0)


def test_of_plans_that_are_alike_the_first_that_was_proposed_wins() -> None:
    planner = RandomShooting(
        space=ActionSpace(low=-torch.ones(3), high=torch.ones(3), steps=6), samples=5, iterations=1
    )
    offered = 0.3 * ACTIONS.clamp(-3, 3)
    proposal = Proposal(lambda state, n: offered, 1.0)
    far = LatentEnergy(Walk(), Z, GOAL)
    best = planner.plan(far, planner.init(2), proposals=[proposal])
    index = far(offered).argmin(1)
    assert index.all()  # not the first, for either problem
    torch.testing.assert_close(best.actions, offered[torch.arange(2), index])
    alike = planner.plan(Clipped(far, 1e-3), planner.init(2), proposals=[proposal])
    torch.testing.assert_close(alike.actions, offered[:, 0])


def test_control_energy_is_effort_and_smoothness() -> None:
    ramp = torch.arange(4.0)[None, None, :, None]
    assert ControlEnergy()(ramp).item() == pytest.approx((0 + 1 + 4 + 9) / 4)
    assert ControlEnergy(smooth=2.0)(ramp).item() == pytest.approx(14 / 4 + 2 * 1)


def test_reductions_over_the_horizon() -> None:
    distance = squared_distances()
    for reduce, expected in {
        "min": distance.amin(-1) + 0.1 * distance[..., -1],
        "final": distance[..., -1],
        "path": distance.mean(-1) + 0.1 * distance[..., -1],
    }.items():
        torch.testing.assert_close(LatentEnergy(Walk(), Z, GOAL, reduce=reduce)(ACTIONS), expected)


def test_with_a_time_penalty_the_soonest_of_those_that_arrive_wins() -> None:
    """One goes now and waits there, one waits here and goes last, one never goes: 1 metre along x in 6 steps."""
    plans = torch.zeros(1, 3, 6, 3)
    plans[0, 0, 0, 0] = plans[0, 1, 5, 0] = 1.0
    slow, late, never = LatentEnergy(Walk(), Z[:1], GOAL[:1])(plans)[0].tolist()
    assert slow == late < never
    now, late, never = LatentEnergy(Walk(), Z[:1], GOAL[:1], time_penalty=0.01)(plans)[0].tolist()
    assert now < late < never and late - now == pytest.approx(0.05)


def test_distances() -> None:
    path, goal = ACTIONS.cumsum(2), GOAL[:, None, None]
    cosine = 1 - (path * goal).sum(-1) / (path.norm(dim=-1) * goal.norm(dim=-1))
    for distance, expected in {"l1": (path - goal).abs().mean(-1), "cosine": cosine}.items():
        energy = LatentEnergy(Walk(), Z, GOAL, distance=distance, reduce="final")
        torch.testing.assert_close(energy(ACTIONS), expected[..., -1])


def test_ensembles() -> None:
    gains = (0.5, 1.0, 2.0)
    single = torch.stack(
        [LatentEnergy(Walk(), Z, GOAL, reduce="final")(gain * ACTIONS) for gain in gains]
    )  # a gain on the actions is a gain on the path
    model = Walk(gains)
    for ensemble, expected in {
        "mean": single.mean(0),
        "worst": single.max(0).values,
        "mean_std": single.mean(0) + 3 * single.std(0, correction=0),
    }.items():
        energy = LatentEnergy(model, Z, GOAL, reduce="final", ensemble=ensemble, ensemble_k=3)
        torch.testing.assert_close(energy(ACTIONS), expected)
    spread = model.rollout(Z, ACTIONS).var(0, correction=0).mean((-1, -2))
    penalised = LatentEnergy(model, Z, GOAL, reduce="final", disagreement=4.0)(ACTIONS)
    torch.testing.assert_close(penalised, single.mean(0) + 4 * spread)
    alike = LatentEnergy(Walk((1.0, 1.0)), Z, GOAL, disagreement=4.0)(ACTIONS)
    torch.testing.assert_close(alike, LatentEnergy(Walk(), Z, GOAL)(ACTIONS))


def test_half_precision_rollouts_give_energies_in_the_precision_of_the_goal() -> None:
    class Half(Walk):
        def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
            return super().rollout(z, actions).bfloat16()

    energies = LatentEnergy(Half(), Z, GOAL)(ACTIONS)
    assert energies.dtype == torch.float32
    torch.testing.assert_close(energies, LatentEnergy(Walk(), Z, GOAL)(ACTIONS), rtol=0.05, atol=0.05)


def test_latent_energies_have_gradients_even_at_the_goal() -> None:
    for distance in ("mse", "l1", "cosine"):
        actions = torch.ones(2, 1, 6, 3) / 6
        actions.requires_grad_()
        energy = LatentEnergy(Walk(), Z, torch.ones(2, 3), distance=distance, reduce="final")(actions)
        (gradient,) = torch.autograd.grad(energy.sum(), actions)
        assert gradient.isfinite().all()


def test_a_term_of_the_wrong_shape_is_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(B, N\) = \(2, 5\), got \(5,\)"):
        (ControlEnergy() + (lambda actions: actions.sum((0, 2, 3))))(ACTIONS)


def test_a_name_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(ValueError, match="reduce='minimum': choose one of min, final, path"):
        LatentEnergy(Walk(), Z, GOAL, reduce="minimum")


BOX = {"low": torch.tensor([[-1.0, -1, -1], [4, 4, 4]]), "high": torch.tensor([[1.0, 1, 1], [5, 5, 5]])}


def test_keep_out_boxes_count_and_measure() -> None:
    positions = torch.tensor([[0.0, 0, 0], [0.75, 0, 0], [2, 0, 0], [4.5, 4.5, 4.9], [torch.nan, 9, 9]])[None, None]
    soft = KeepOut(lambda actions: actions, hard=False, **BOX)
    assert soft.violations(positions).tolist() == [[4]]  # a position that is not a number is nowhere safe
    assert soft(positions[:, :, :4]).item() == pytest.approx(1.0 + 0.25 + 0.1)
    hard = KeepOut(lambda actions: actions, hard=True, **BOX)
    assert hard(positions[:, :, 2:3]).tolist() == [[0.0]]
    assert hard(positions).tolist() == [[float("inf")]]


def test_limits_count_and_measure() -> None:
    angles = torch.tensor([[0.0, 0.5], [1.5, 0.0], [0.0, -3.0]])[None, None]
    limits = Limits(lambda actions: actions, hard=False, low=-torch.ones(2), high=torch.ones(2))
    assert limits.violations(angles).tolist() == [[2]]
    assert limits(angles).item() == pytest.approx(0.5 + 2.0)


def walking(batch: int = 2) -> tuple[CEM, KeepOut]:
    """A point that walks from 0 with steps in [-1, 1] past a wall at x = 2 … 2.5, which it can jump over."""
    space = ActionSpace(low=-torch.ones(1), high=torch.ones(1), steps=4)
    wall = KeepOut(lambda actions: actions.cumsum(2), hard=True, low=torch.tensor([2.0]), high=torch.tensor([2.5]))
    return CEM(space=space, samples=200, iterations=8), wall


def test_hard_constraints_hold_where_they_can_be_kept() -> None:
    planner, wall = walking()
    goal = as_energy(lambda actions: (actions.sum((-1, -2)) - 3.2).square())
    free = planner.plan(goal, planner.init(2))
    plan = planner.plan(goal + wall, planner.init(2))
    assert plan.status == (Status.OK, Status.OK)
    assert plan.stats.violations is not None and plan.stats.violations.tolist() == [0, 0]
    assert free.stats.violations is None
    torch.testing.assert_close(plan.energy, torch.zeros(2), atol=1e-3, rtol=0)


def test_a_plan_that_cannot_satisfy_its_constraints_says_so() -> None:
    planner, _ = walking()
    everywhere = KeepOut(lambda actions: actions, hard=True, low=-torch.full((1,), 9.0), high=torch.full((1,), 9.0))
    plan = planner.plan(ControlEnergy() + everywhere, planner.init(2))
    assert plan.status == (Status.INFEASIBLE, Status.INFEASIBLE)
    assert plan.stats.violations is not None and plan.stats.violations.tolist() == [4, 4]
    soft = KeepOut(everywhere.quantity, hard=False, low=everywhere.low, high=everywhere.high)
    assert planner.plan(ControlEnergy() + soft, planner.init(1)).status == (Status.INFEASIBLE,)
