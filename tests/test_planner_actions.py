"""The action space: bounds, splines, shifts, slew rate and noise."""

import math
from typing import Any

import pytest
import torch
from forearm.planner.actions import ActionSpace, Spline, _mix
from torch import Tensor

SPLINES: tuple[Spline, ...] = ("zero", "linear", "cubic")


def space(**settings: Any) -> ActionSpace:
    defaults: dict[str, Any] = {"low": torch.tensor([-1.0, 0.1]), "high": torch.tensor([3.0, 0.3]), "steps": 12}
    return ActionSpace(**(defaults | settings))


def knots_for(space: ActionSpace, *batch: int, scale: float = 1.0) -> Tensor:
    return scale * (2 * torch.rand(*batch, space.knots, space.size, generator=torch.Generator().manual_seed(0)) - 1)


@pytest.mark.parametrize("spline", SPLINES)
@pytest.mark.parametrize("knots", [1, 2, 4, 12])
def test_actions_stay_within_bounds(spline: Spline, knots: int) -> None:
    box = space(spline=spline, knots=knots)
    actions = box.expand(knots_for(box, 3, 50, scale=1.0).sign())  # corners: the cubic overshoots
    assert actions.shape == (3, 50, 12, 2)
    assert (actions >= box.low).all() and (actions <= box.high).all()


def test_one_knot_a_model_step_by_default() -> None:
    box = space(chunk=3)
    assert box.knots == 4
    actions = box.expand(knots_for(box, 2))
    held = actions.reshape(2, 4, 3, 2)
    assert torch.equal(held, held[:, :, :1].expand_as(held))


def test_linear_and_cubic_pass_through_their_knots_and_reproduce_lines() -> None:
    for spline in ("linear", "cubic"):
        box = space(spline=spline, knots=4, steps=13, low=-torch.ones(1), high=torch.ones(1))
        knots = knots_for(box, 7)
        torch.testing.assert_close(box.expand(knots)[:, ::4], knots)
        line = torch.linspace(-1, 1, 4)[None, :, None]
        torch.testing.assert_close(box.expand(line)[0, :, 0], torch.linspace(-1, 1, 13))


@pytest.mark.parametrize("spline", SPLINES)
def test_fit_inverts_expand(spline: Spline) -> None:
    box = space(spline=spline, knots=4)
    knots = knots_for(box, 2, 5, scale=0.5)
    torch.testing.assert_close(box.fit(box.expand(knots)), knots, atol=1e-5, rtol=0)


def test_fit_of_what_is_not_finite_is_finite() -> None:
    fixed = space(high=torch.tensor([3.0, 0.1]))  # the second action has one value only
    actions = torch.full((1, 1, 12, 2), torch.nan)
    assert fixed.fit(actions).isfinite().all()
    assert torch.equal(fixed.expand(fixed.fit(actions))[..., 1], torch.full((1, 1, 12), 0.1))


@pytest.mark.parametrize("executed", [0, 1, 5, 12, 40])
def test_shift_is_exact_for_one_knot_a_step(executed: int) -> None:
    box = space()
    knots = knots_for(box, 2, 3)
    before = box.expand(knots)
    later = (torch.arange(12) + executed).clamp(max=11)
    assert torch.equal(box.expand(box.shift(knots, executed)), before[..., later, :])


def test_shift_by_whole_chunks_is_exact_for_held_knots() -> None:
    box = space(chunk=3)
    knots = knots_for(box, 2)
    torch.testing.assert_close(box.shift(knots, 6), torch.cat((knots[:, 2:], knots[:, 3:], knots[:, 3:]), 1))


def test_shift_by_less_than_a_chunk_is_the_nearest_spline() -> None:
    box = space(chunk=3, low=-torch.ones(1), high=torch.ones(1))
    knots = knots_for(box, 2)
    following = box.expand(knots)[:, (torch.arange(12) + 1).clamp(max=11)]
    torch.testing.assert_close(box.shift(knots, 1), following.reshape(2, 4, 3, 1).mean(2))


@pytest.mark.parametrize("spline", SPLINES)
def test_slew_rate_holds_from_the_action_executed_last(spline: Spline) -> None:
    slew = torch.tensor([0.3, 0.01])
    box = space(spline=spline, knots=6, slew=slew)
    previous = torch.tensor([[0.0, 0.2], [3.0, 0.1]])
    actions = box.expand(knots_for(box, 2, 40).sign(), previous)
    steps = torch.cat((previous[:, None, None].expand(-1, 40, 1, -1), actions), dim=2).diff(dim=2).abs()
    assert (steps <= slew + 1e-6).all()
    assert (actions >= box.low).all() and (actions <= box.high).all()
    assert (steps.amax((0, 1, 2)) >= slew - 1e-6).all()  # and is used in full


def test_a_slew_rate_that_is_not_reached_changes_nothing() -> None:
    box, free = space(slew=torch.tensor([9.0, 9.0])), space()
    knots = knots_for(box, 2, 3)
    assert torch.equal(box.expand(knots), free.expand(knots))


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0])
def test_noise_has_unit_variance_and_its_colour(beta: float) -> None:
    box = space(noise_beta=beta, steps=16)
    noise = box.noise([0, 1], 0, (4, 5000))
    assert noise.shape == (4, 2, 5000, 16, 2)
    torch.testing.assert_close(noise.var((0, 1, 2)), torch.ones(16, 2), atol=0.05, rtol=0)
    neighbours = (noise[..., :-1, :] * noise[..., 1:, :]).mean()
    ends = (noise[..., 0, :] * noise[..., -1, :]).mean()
    if beta == 0:
        assert abs(neighbours) < 0.02
    else:
        # The process' own correlation at lag 1, from its power spectrum over a period of 32.
        frequency = torch.arange(17).clamp(min=1) / 32
        spectrum = frequency**-beta * torch.tensor([1.0] + [2.0] * 15 + [1.0])
        expected = (spectrum * torch.cos(2 * math.pi * torch.arange(17) / 32)).sum() / spectrum.sum()
        assert neighbours == pytest.approx(expected.item(), abs=0.02)
        assert ends < neighbours - 0.3  # no wrapping round


def test_each_problem_has_a_stream_of_its_own() -> None:
    box = space()
    together = box.noise([7, 8, 9], 4, (2, 10))
    for b, seed in enumerate([7, 8, 9]):
        assert torch.equal(box.noise([seed], 4, (2, 10))[:, 0], together[:, b])
    assert not torch.equal(together[:, 0], together[:, 1])
    assert not torch.equal(together, box.noise([7, 8, 9], 5, (2, 10)))


def test_seeds_and_counts_mix_without_collisions() -> None:
    # torch's CPU generator uses 32 bits of its seed: 10^4 streams may collide by chance once in a hundred runs.
    assert len({_mix(seed, count) & 0xFFFFFFFF for seed in range(100) for count in range(100)}) >= 9999


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": torch.tensor([-1.0, -torch.inf])}, "finite"),
        ({"low": torch.tensor([-1.0, 0.5])}, "low <= high"),
        ({"low": torch.tensor([-1, 0])}, "floating"),
        ({"low": torch.zeros(3)}, r"\(A,\)"),
        ({"chunk": 5}, "chunk=5 must divide steps=12"),
        ({"knots": 13}, "knots=13"),
        ({"knots": 5}, "knots=5 must divide steps=12"),
        ({"spline": "quintic"}, "zero, linear, cubic"),
        ({"noise_beta": -1.0}, "noise_beta=-1.0: must not be negative"),
        ({"slew": torch.tensor([0.0, 1.0])}, "slew"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space(**settings)
