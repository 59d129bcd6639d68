"""What holds for every planner in the registry, and for the agent that runs it."""

import shutil
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from forearm.planner import PLANNERS, ActionSpace, Agent, Planner, PlanState, Proposal, Status, make_planner
from forearm.planner.compilation import Backend
from forearm.planner.problems import double_integrator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

EVERY = pytest.mark.parametrize("name", PLANNERS)
LQR = double_integrator()
SPACE = ActionSpace(
    low=torch.tensor([-1.0, 0.0]),
    high=torch.tensor([1.0, 0.5]),
    steps=8,
    chunk=2,
    spline="cubic",
    slew=torch.tensor([0.4, 0.1]),
    noise_beta=1.0,
)


def small(name: str, space: ActionSpace = LQR.space) -> Planner:
    settings: dict[str, Any] = {"samples": 4 if name == "gradient" else 24, "iterations": 4}
    return make_planner(name, space, **settings)


def bowl(actions: Tensor) -> Tensor:
    return (actions - 0.3).square().sum((-1, -2))


def assert_same(one: PlanState, other: PlanState) -> None:
    for key, tensor in one.tensors().items():
        assert torch.equal(tensor, other.tensors()[key]), key


@EVERY
def test_alone_in_a_batch_and_in_any_order(name: str) -> None:
    planner = small(name)
    seeds = [11, 5, 8]
    together = planner.plan(LQR.energy, planner.init(3, seeds))
    backwards = planner.plan(LQR.energy, planner.init(3, seeds[::-1]))
    torch.testing.assert_close(backwards.actions.flip(0), together.actions, atol=1e-5, rtol=0)
    for b, seed in enumerate(seeds):
        alone = planner.plan(LQR.energy, planner.init(1, [seed]))
        torch.testing.assert_close(alone.actions[0], together.actions[b], atol=1e-5, rtol=0)


@EVERY
def test_the_same_seed_gives_the_same_plan_and_the_next_plan_another(name: str) -> None:
    planner = small(name)
    one, other = (planner.plan(LQR.energy, planner.init(2, 3)) for _ in range(2))
    assert torch.equal(one.actions, other.actions)
    assert_same(one.state, other.state)
    assert one.state.count == 1

    def candidates(state: PlanState) -> Tensor:
        seen: list[Tensor] = []
        planner.plan(lambda actions: (seen.append(actions.detach().clone()), LQR.energy(actions))[1], state)
        return seen[0][:, 1:-1]  # without the mean and the previous plan

    first = candidates(planner.init(2, 3))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, candidates(replace(planner.init(2, 3), count=1)))


@EVERY
def test_planning_changes_neither_state_nor_settings(name: str) -> None:
    planner = small(name)
    state = planner.shift(planner.plan(LQR.energy, planner.init(2)).state, 1)
    before = {key: tensor.clone() for key, tensor in state.tensors().items()}
    planner.plan(LQR.energy, state)
    assert all(torch.equal(before[key], tensor) for key, tensor in state.tensors().items())
    assert is_dataclass(planner) and is_dataclass(state)
    with pytest.raises(AttributeError):
        setattr(planner, fields(planner)[1].name, 3)


@EVERY
def test_a_warm_start_never_loses_what_was_found(name: str) -> None:
    """The previous plan is a candidate: on the same problem, energy cannot rise."""
    planner = replace(small(name), execute="best")
    state, last = planner.init(3), torch.full((3,), torch.inf)
    for _ in range(5):
        plan = planner.plan(LQR.energy, state)
        assert (plan.energy <= last + 1e-5).all()
        state, last = plan.state, plan.energy


@EVERY
@pytest.mark.parametrize("execute", ["best", "mean"])
def test_the_energy_of_a_plan_is_the_energy_of_its_actions(name: str, execute: Any) -> None:
    planner = replace(small(name, SPACE), execute=execute)
    plan = planner.plan(bowl, planner.init(3))
    torch.testing.assert_close(plan.energy, bowl(plan.actions))
    assert plan.actions.shape == (3, 8, 2) and not plan.actions.requires_grad
    assert plan.status == (Status.OK,) * 3 and plan.stats.iterations == planner.iterations


def mess(kind: int) -> Any:
    """Energies as they go wrong, differentiable as far as possible."""

    def energy(actions: Tensor) -> Tensor:
        value = bowl(actions)
        mean = value.mean(1, keepdim=True)
        if kind == 0:
            return value * torch.nan
        if kind == 1:
            return torch.where(value > mean, value * torch.inf, value)
        if kind == 2:
            return torch.where(value > mean, value, -torch.inf * value)
        if kind == 3:
            return value * 0 + 7
        if kind == 4:
            return (value - mean).sqrt()  # NaN below the mean, an infinite slope near it
        if kind == 5:
            return value * 1e37
        return value

    return energy


@EVERY
def test_fuzz_never_an_action_that_is_not_finite_or_out_of_bounds(name: str) -> None:
    planner = small(name, SPACE)
    state, previous = planner.init(2), torch.tensor([[0.0, 0.2], [1.0, 0.0]])
    kinds = torch.randint(0, 8, (200,), generator=torch.Generator().manual_seed(1)).tolist()
    for kind in kinds:
        if kind == 7:
            with pytest.raises(ValueError, match=r"\(B, N\) = \(2, \d+\), got"):
                planner.plan(lambda actions: bowl(actions).mean(1), state)
            continue
        candidates: list[Tensor] = []
        energy = mess(kind)
        plan = planner.plan(
            lambda actions, energy=energy, candidates=candidates: (
                candidates.append(actions.detach()),
                energy(actions),
            )[1],
            state,
            previous_action=previous,
        )
        for actions in (*candidates, plan.actions[:, None]):
            assert actions.isfinite().all()
            assert (actions >= SPACE.low).all() and (actions <= SPACE.high).all()
            first = previous[:, None, None].expand(-1, actions.shape[1], 1, -1)
            steps = torch.cat((first, actions), dim=2).diff(dim=2).abs()
            assert SPACE.slew is not None and (steps <= SPACE.slew + 1e-6).all()
        for status, lowest in zip(plan.status, plan.energy, strict=True):
            assert status is (Status.OK if lowest.isfinite() else Status.NO_FINITE_ENERGY)
            if kind in (0, 3, 5, 6):  # the others have no finite energy where all candidates are alike
                assert lowest.isfinite() == (kind != 0)
        for tensor in plan.state.tensors().values():
            assert tensor.isfinite().all()
        previous = plan.actions[:, 1]
        state = planner.shift(plan.state, 2)


@EVERY
def test_without_a_finite_energy_the_previous_plan_stays(name: str) -> None:
    planner = small(name)
    state = planner.shift(planner.plan(LQR.energy, planner.init(2)).state, 1)
    plan = planner.plan(mess(0), state)
    assert torch.equal(plan.actions, planner.space.expand(state.best))
    assert plan.status == (Status.NO_FINITE_ENERGY,) * 2


@EVERY
def test_one_bad_problem_does_not_touch_the_others(name: str) -> None:
    planner = small(name)
    bad = torch.tensor([[1.0], [torch.nan]])
    mixed = planner.plan(lambda actions: LQR.energy(actions) * bad[:, :1], planner.init(2))
    clean = planner.plan(LQR.energy, planner.init(2))
    assert torch.equal(mixed.actions[0], clean.actions[0])
    assert mixed.status == (Status.OK, Status.NO_FINITE_ENERGY)


class HostSyncs(TorchDispatchMode):
    """Counts the operators that make a device wait for the host, by value or by shape."""

    NAMES = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        boolean_mask = name.startswith("index") and any(
            isinstance(index, Tensor) and index.dtype is torch.bool
            for arg in args
            if isinstance(arg, list)
            for index in arg
        )
        self.count += name in self.NAMES or boolean_mask
        return func(*args, **(kwargs or {}))


def test_the_counter_of_host_syncs_counts() -> None:
    values = torch.arange(3.0)
    with HostSyncs() as syncs:
        values.sum().item()
        bool(values[0] > 0)
        values[values > 1]
    assert syncs.count == 3


@EVERY
@pytest.mark.parametrize("execute", ["best", "mean"])
def test_planning_never_waits_for_the_device(name: str, execute: Any) -> None:
    planner = replace(small(name, SPACE), execute=execute)
    proposals = [Proposal(lambda state, n: torch.zeros(2, n, 8, 2), 0.25)]
    with HostSyncs() as syncs:
        state = planner.shift(planner.plan(bowl, planner.init(2)).state, 1)
        planner.plan(bowl, state, previous_action=torch.zeros(2, 2), proposals=proposals)
    assert syncs.count == 0


class FakeClock:
    """A clock that an energy moves on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def slow(self, energy: Any, seconds: float) -> Any:
        def slowed(actions: Tensor) -> Tensor:
            self.now += seconds
            return energy(actions)

        return slowed


@EVERY
def test_deadline(name: str) -> None:
    planner, clock = replace(small(name), execute="best"), FakeClock()
    energy = clock.slow(LQR.energy, 0.008)
    for deadline, iterations, status in (
        (1.0, 4, Status.OK),
        (0.020, 2, Status.DEADLINE),  # a third iteration would end at 24 ms
        (0.0081, 1, Status.DEADLINE),
        (0.005, 1, Status.LATE),
    ):
        plan = planner.plan(energy, planner.init(2), deadline=deadline, clock=clock)
        assert (plan.stats.iterations, plan.status) == (iterations, (status, status))
        assert plan.stats.elapsed == pytest.approx(0.008 * iterations)
        assert plan.energy.isfinite().all()


@EVERY
def test_proposals_are_candidates(name: str) -> None:
    """A proposal that contains the optimum cannot be beaten by anything but the optimum."""
    planner = replace(small(name), execute="best")
    best = torch.linspace(-1, 1, 20).view(20, 1)

    def energy(actions: Tensor) -> Tensor:
        return (actions - best).square().sum((-1, -2))

    counts: list[int] = []

    def library(state: PlanState, count: int) -> Tensor:
        counts.append(count)
        return best.expand(len(state.seeds), count, 20, 1)

    plan = planner.plan(energy, planner.init(2), proposals=[Proposal(library, 0.25)])
    torch.testing.assert_close(plan.actions, best.expand(2, 20, 1), atol=1e-5, rtol=0)
    assert counts == [planner.samples // 4]
    with pytest.raises(ValueError, match=r"\(B, n, T, A\)"):
        planner.plan(energy, planner.init(2), proposals=[Proposal(lambda state, n: best, 0.5)])


@EVERY
def test_where_proposals_are_all_there_is_nothing_else_is_tried(name: str) -> None:
    """Standing still, which a learned model may never have seen, is no candidate; nor is the previous plan."""
    planner = small(name)
    tried: list[Tensor] = []

    def energy(actions: Tensor) -> Tensor:
        tried.append(actions.detach().clone())
        return actions.square().sum((-1, -2))

    offers = Proposal(lambda state, n: torch.full((2, n, 20, 1), 0.5), 1.0)
    state = replace(planner.init(2), best=torch.ones(2, planner.space.knots, 1))
    planner.plan(energy, state, proposals=[offers])
    torch.testing.assert_close(tried[0], torch.full((2, planner.samples, 20, 1), 0.5))


@EVERY
def test_where_what_is_at_hand_is_enough_nothing_is_searched(name: str) -> None:
    planner = small(name)
    first = replace(planner, replan_above=1e9).plan(LQR.energy, planner.init(2))
    assert first.status == (Status.OK,) * 2  # nothing is at hand yet
    state = planner.shift(first.state, 1)
    warm = LQR.energy(planner.space.expand(state.best)[:, None])[:, 0]

    with HostSyncs() as syncs:
        rests = replace(planner, replan_above=1e9).plan(LQR.energy, state)
    assert syncs.count == 1
    assert torch.equal(rests.actions, planner.space.expand(state.best))
    torch.testing.assert_close(rests.energy, warm)
    assert rests.status == (Status.REUSED,) * 2 and rests.state.count == 2
    assert (rests.stats.iterations, rests.stats.evaluations) == (0, 1)

    plain, searches = (
        replace(planner, replan_above=replan_above).plan(LQR.energy, state) for replan_above in (-torch.inf, 0.0)
    )
    assert torch.equal(searches.actions, plain.actions)
    assert_same(searches.state, plain.state)
    assert searches.status == (Status.OK,) * 2
    assert searches.stats.evaluations == plain.stats.evaluations + 1

    offer = Proposal(lambda state, n: torch.zeros(2, n, 20, 1), 1 / planner.samples)
    still = LQR.energy(torch.zeros(2, 1, 20, 1))[:, 0]
    assert (still > warm).all()
    offered = replace(planner, replan_above=float(still.max())).plan(LQR.energy, state, proposals=[offer])
    torch.testing.assert_close(offered.energy, warm)
    assert offered.stats.evaluations == 2


@EVERY
def test_some_of_a_batch_are_searched_and_each_gets_what_it_gets_alone(name: str) -> None:
    easy, hard = torch.tensor(1.0), torch.tensor(100.0)
    state = small(name).shift(small(name).plan(LQR.energy, small(name).init(2, [3, 8])).state, 1)
    planner = replace(small(name), replan_above=10 * float(LQR.energy(LQR.space.expand(state.best)[:, None]).max()))
    scale = torch.stack((easy, hard))[:, None]
    plan = planner.plan(lambda actions: scale * LQR.energy(actions), state)
    assert plan.status == (Status.REUSED, Status.OK)
    assert plan.stats.searched is not None and plan.stats.searched.tolist() == [False, True]
    for b, weight in enumerate((easy, hard)):
        saved = {key: value[b : b + 1] if value.dim() else value for key, value in state.tensors().items()}
        alone = planner.plan(lambda actions, weight=weight: weight * LQR.energy(actions), PlanState.from_tensors(saved))
        torch.testing.assert_close(alone.actions[0], plan.actions[b], atol=1e-5, rtol=0)
        for key, value in alone.state.tensors().items():
            if value.dim():
                torch.testing.assert_close(value[0], plan.state.tensors()[key][b], atol=1e-5, rtol=0)


def test_what_is_not_finite_is_never_enough() -> None:
    planner = replace(small("cem"), replan_above=1e9)
    state = planner.shift(planner.plan(LQR.energy, planner.init(2)).state, 1)
    plan = planner.plan(mess(0), state)
    assert plan.status == (Status.NO_FINITE_ENERGY,) * 2 and plan.stats.iterations == planner.iterations
    with pytest.raises(ValueError, match="replan_above=inf: must be below inf"):
        replace(planner, replan_above=torch.inf)


def test_a_plan_at_hand_may_be_late_too() -> None:
    clock = FakeClock()
    planner = replace(small("cem"), replan_above=1e9)
    state = planner.shift(planner.plan(LQR.energy, planner.init(2)).state, 1)
    for seconds, status in ((0.01, Status.REUSED), (0.03, Status.LATE)):
        plan = planner.plan(clock.slow(LQR.energy, seconds), state, deadline=0.02, clock=clock)
        assert plan.status == (status,) * 2 and plan.stats.iterations == 0


def servo(observation: dict[str, Tensor]) -> Any:
    """Bring x to zero, x' = x + 0.2 sum of the actions."""
    return lambda actions: (observation["x"][:, None, None] + 0.2 * actions.sum(-1).cumsum(-1)).square().mean(-1)


def run(agent: Agent, x: Tensor, plans: int) -> tuple[Tensor, list[Tensor]]:
    executed: list[Tensor] = []
    for _ in range(plans):
        actions = agent.act({"x": x})
        x = x + 0.2 * actions.sum((-1, -2))
        executed.append(actions)
    return x, executed


@EVERY
def test_the_loop_closes_and_resumes_in_mid_episode(name: str) -> None:
    start = torch.tensor([1.0, -0.7])
    agent = Agent(small(name, SPACE), servo, 2, seeds=4)
    middle, _ = run(agent, start, 6)
    saved = {key: tensor.clone() for key, tensor in agent.tensors().items()}
    _, expected = run(agent, middle, 6)
    other = Agent(small(name, SPACE), servo, 2, seeds=99)
    other.restore(saved)
    end, resumed = run(other, middle, 6)
    assert all(torch.equal(a, b) for a, b in zip(expected, resumed, strict=True))
    assert expected[0].shape == (2, 2, 2)  # one chunk
    assert end.abs().max() < 0.15
    assert SPACE.slew is not None
    assert (torch.cat(expected, dim=1).diff(dim=1).abs() <= SPACE.slew + 1e-6).all()


def test_a_late_plan_is_a_miss_and_the_rest_of_the_last_one_is_executed() -> None:
    clock = FakeClock()
    seconds = iter([0.001, 0.001, 0.5, 0.5, 0.001])

    def make_energy(observation: dict[str, Tensor]) -> Any:
        clock.now += next(seconds)  # encoding counts as well
        return servo(observation)

    agent = Agent(small("cem"), make_energy, 1, execute_steps=3, deadline=0.02, clock=clock)
    x = torch.ones(1)
    agent.act({"x": x})
    on_time = agent.act({"x": x})
    assert agent.misses == 0 and agent.last_plan is not None
    assert torch.equal(on_time, agent.last_plan.actions[:, :3])
    rest = agent.last_plan.actions[:, 3:]
    assert torch.equal(agent.act({"x": x}), rest[:, :3])
    late = agent.last_plan
    assert late.status == (Status.LATE,)
    # Two misses in a row: the late plan was for the step before, and its rest is now the newest there is.
    assert torch.equal(agent.act({"x": x}), late.actions[:, 3:6])
    agent.act({"x": x})
    assert agent.misses == 2 and len(agent.plan_seconds) == 5
    assert agent.plan_seconds[2] == pytest.approx(0.5)
    agent.reset(0)
    assert agent.misses == 0 and not agent.plan_seconds and agent.state.count == 0


def test_misses_keep_the_slew_rate() -> None:
    clock = FakeClock()
    seconds = iter([0.001, 0.5, 0.5, 0.001, 0.5, 0.001] * 2)

    def make_energy(observation: dict[str, Tensor]) -> Any:
        clock.now += next(seconds)
        return servo(observation)

    agent = Agent(small("mppi", SPACE), make_energy, 2, execute_steps=1, deadline=0.02, clock=clock)
    _, executed = run(agent, torch.tensor([2.0, -2.0]), 12)
    assert agent.misses == 6 and SPACE.slew is not None
    assert (torch.cat(executed, dim=1).diff(dim=1).abs() <= SPACE.slew + 1e-6).all()


def test_a_custom_algorithm_needs_only_propose_and_update() -> None:
    class Uniform(Planner):
        def propose(self, state: PlanState, noise: Tensor, iteration: int) -> Tensor:
            return torch.special.erf(noise / 2**0.5)

        def update(self, state: PlanState, knots: Tensor, energies: Tensor, iteration: int) -> PlanState:
            return state

    planner = Uniform(space=SPACE, samples=300)
    assert (planner.plan(bowl, planner.init(2)).energy < bowl(torch.zeros(2, 8, 2))).all()


def test_seeds_must_match_the_batch() -> None:
    with pytest.raises(ValueError, match="2 seeds for 3 problems"):
        small("cem").init(3, [1, 2])


WITH_KERNELS = pytest.param(
    "cem",
    "inductor",
    marks=[
        pytest.mark.skipif(not shutil.which("g++"), reason="no g++"),
        pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),  # torch's own
    ],
)


@pytest.mark.parametrize(("name", "backend"), [*((name, "aot_eager") for name in PLANNERS), WITH_KERNELS])
def test_a_compiled_search_finds_what_an_eager_one_finds(name: str, backend: Backend) -> None:
    eager, compiled = (replace(small(name), backend=each) for each in ("eager", backend))
    state, plan = compiled.init(2), None
    for _ in range(3):
        expected, plan = eager.plan(LQR.energy, state), compiled.plan(LQR.energy, state)
        torch.testing.assert_close(plan.actions, expected.actions, atol=1e-5, rtol=0)
        assert (plan.stats.evaluations, plan.state.seeds) == (expected.stats.evaluations, expected.state.seeds)
        state = compiled.shift(plan.state, 1)
    assert plan is not None and plan.stats.compiled
    expected, plan = (each.plan(LQR.energy, state, deadline=100.0) for each in (eager, compiled))
    assert not plan.stats.compiled  # for it looks at the clock; what it evaluates is
    torch.testing.assert_close(plan.actions, expected.actions, atol=1e-5, rtol=0)
    assert compiled._fused(LQR.energy, state.mean[:, None], None)[1] or name == "gradient"


def test_a_machine_without_a_compiler_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(*_: Any, **settings: Any) -> Any:
        def fails(*_: Any) -> Any:
            raise RuntimeError("No working C++ compiler found:\n /bin/false")

        return fails

    monkeypatch.setattr(torch, "compile", no_compiler)
    planner = replace(small("cem"), backend="inductor")
    planner.plan(LQR.energy, planner.init(1))
    with pytest.warns(RuntimeWarning, match="backend=inductor .*Error: No working C.. compiler found: /bin"):
        plan = planner.plan(LQR.energy, planner.init(1))
    assert plan.stats.backend == "eager"
    assert planner.plan(LQR.energy, planner.init(1)).stats.backend == "eager"  # not tried again


def test_a_compiled_search_sees_what_changes_between_plans() -> None:
    def towards(goal: float) -> Callable[[Tensor], Tensor]:
        to = torch.full((2,), goal)
        return lambda actions: (actions - to).square().sum((-1, -2))

    def hidden(goal: float) -> Callable[[Tensor], Tensor]:
        to = torch.full((2,), goal)

        def energy(actions: Tensor, *, goal: Tensor = to) -> Tensor:
            return (actions - goal).square().sum((-1, -2))

        return energy

    eager, compiled = (replace(small("cem", SPACE), backend=backend) for backend in ("eager", "aot_eager"))
    previous = torch.full((3, 2), 0.5)
    plans = []
    for batch, energy, before in (
        (1, towards(0.3), None), (1, towards(0.3), None), (1, towards(-0.3), None),
        (1, hidden(0.2), None), (1, hidden(-0.4), None),
        (1, bowl, None), (3, bowl, previous),
    ):  # fmt: skip
        plans = [p.plan(energy, p.init(batch), previous_action=before) for p in (eager, compiled)]
        torch.testing.assert_close(plans[1].actions, plans[0].actions, atol=1e-5, rtol=0)
    assert plans[1].stats.compiled


def test_what_cannot_be_compiled_runs_all_the_same_and_says_why_once() -> None:
    def leaves_torch(actions: Tensor) -> Tensor:
        return torch.from_numpy(bowl(actions).numpy() * float(np.random.default_rng(0).uniform(1.0, 1.0)))

    eager, compiled = (replace(small("cem"), backend=backend) for backend in ("eager", "aot_eager"))
    with pytest.warns(RuntimeWarning, match="backend=aot_eager cannot compile a search, which runs eagerly: ") as told:
        for seed in range(4):
            plan = compiled.plan(leaves_torch, compiled.init(1, seed))
            assert torch.equal(plan.actions, eager.plan(leaves_torch, eager.init(1, seed)).actions)
            assert plan.stats.backend == "eager"
    assert len(told) == 1
    other = replace(compiled)  # as new
    other.plan(bowl, other.init(1))
    with pytest.raises(ValueError, match="must return"):  # the error of an energy is its own, not a compiler's
        other.plan(lambda actions: bowl(actions)[:, :1], other.init(1))
    assert other.plan(bowl, other.init(1)).stats.backend == "aot_eager"


@EVERY
def test_samples_come_in_pairs_that_mirror_each_other(name: str) -> None:
    planner = small(name)
    noise = planner._mirrored(planner.space.noise((0, 1), 0, (planner.iterations, planner.samples // 2)))
    assert noise.shape[2] == planner.samples
    assert (noise[:, :, 0] == 0).all()
    pairs = (planner.samples - 1) // 2
    assert torch.equal(noise[:, :, 1 : 1 + 2 * pairs : 2], -noise[:, :, 2 : 2 + 2 * pairs : 2])
    assert noise[:, :, 1:].std() == pytest.approx(1.0, abs=0.25)
