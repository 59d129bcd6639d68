"""Other planners, and ours, as functions that plan a `Problem` under a `Budget`: what benchmarks/peers.py compares."""

# pyright: reportMissingImports=false
from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from forearm.envs import make
from forearm.evaluation.goals import make_goals
from forearm.evaluation.settings import action_space
from forearm.models.checkpoint import Checkpoint
from forearm.models.precision import Precision, cpu_has_int8
from forearm.models.world_model import WorldModel
from forearm.planner import ActionSpace, Energy, LatentEnergy, make_planner
from forearm.planner.compilation import Backend
from forearm.planner.problems import PROBLEMS
from torch import Tensor

SHIPPED = Path(__file__).resolve().parent.parent / "models" / "pretrained" / "push-pixels"
ACTIONS = 5  # of push
WHOLE = ", one expression"


class Budget(NamedTuple):
    samples: int
    iterations: int

    @property
    def elites(self) -> int:
        return max(2, self.samples // 10)

    def __str__(self) -> str:
        return f"{self.samples} x {self.iterations} = {self.samples * self.iterations:,}"


Cost = Callable[[Tensor, Tensor], Tensor]
Plan = Callable[[int, Tensor], Tensor]
"""A plan (T, A) of a seed and the plan (T, A) to start from."""


@dataclass(frozen=True)
class Problem:
    """Dynamics step (N, S), (N, A) -> (N, S) from `start` (S,), and cost (N, T, S), (N, T, A) -> (N,); `whole` is the
    same cost as one expression of actions (B, N, T, A) -> (B, N); `variants` are the ways ours are run, by label."""

    name: str
    start: Tensor
    step: Callable[[Tensor, Tensor], Tensor]
    cost: Cost
    space: ActionSpace
    whole: Energy
    variants: dict[str, tuple[Energy | None, Backend]]
    optimum: float | None = None

    @property
    def sigma(self) -> float:
        """Standard deviation of the first samples, in the actions' units; all bounds here are symmetric and equal."""
        return 0.5 * float(self.space.high[0])

    @property
    def device(self) -> str:
        return str(self.start.device)

    def rollout(self, actions: Tensor, start: Tensor | None = None) -> Tensor:
        """States (N, T, S) that follow under actions (N, T, A)."""
        x = (self.start if start is None else start).expand(len(actions), -1)
        states = []
        for u in actions.unbind(1):
            x = self.step(x, u)
            states.append(x)
        return torch.stack(states, 1)

    def value(self, actions: Tensor) -> Tensor:
        """Costs (N,) of actions (N, T, A)."""
        return self.cost(self.rollout(actions), actions)

    def steps(self, actions: Tensor) -> Tensor:
        """The same for one problem's (1, N, T, A), as our planners take it."""
        return self.value(actions[0])[None]


def analytic(
    name: str, start: Tensor, step: Callable[[Tensor, Tensor], Tensor], cost: Cost, words: str = ""
) -> Problem:
    known = PROBLEMS[name]()
    variants: dict[str, tuple[Energy | None, Backend]] = {
        "": (None, "eager"),
        ", compiled": (None, "inductor"),
        WHOLE: (known.energy, "eager"),
        f"{WHOLE}, compiled": (known.energy, "inductor"),
    }
    return Problem(name + words, start, step, cost, known.space, known.energy, variants, known.optimum)


def double_integrator(matrices: bool = False) -> Problem:
    """Its dynamics as equations, or as products of matrices: compilation fuses the former over all steps."""
    a, b = torch.tensor([[1.0, 0.1], [0.0, 1.0]]), torch.tensor([[0.0], [0.1]])
    start = torch.tensor([1.0, 0.0])
    q, final = torch.tensor([1.0, 0.1]), torch.tensor([10.0, 1.0])

    def equations(x: Tensor, u: Tensor) -> Tensor:
        position, velocity = x.unbind(-1)
        return torch.stack((position + 0.1 * velocity, velocity + 0.1 * u[:, 0]), -1)

    def cost(x: Tensor, u: Tensor) -> Tensor:
        running = (x[:, :-1].square() * q).sum((-1, -2)) + 0.1 * u.square().sum((-1, -2)) + (start.square() * q).sum()
        return running + (x[:, -1].square() * final).sum(-1)

    if matrices:
        return analytic("double_integrator", start, lambda x, u: x @ a.T + u @ b.T, cost, ", dynamics as matrices")
    return analytic("double_integrator", start, equations, cost)


def corridor() -> Problem:
    energy = PROBLEMS["corridor"]().energy

    def cost(x: Tensor, u: Tensor) -> Tensor:
        del x  # it is the running sum of the actions, and the known cost takes those
        return energy(u[None])[0]

    return analytic("corridor", torch.zeros(1), torch.add, cost)


Value = Callable[[Problem, Tensor], Tensor]
"""Costs (N,) of plans (N, T, A), step by step or as one expression."""
Make = Callable[[Problem, Budget], Plan]


def push(model: WorldModel, z: Tensor, goal: Tensor, horizon: int) -> Problem:
    """Push as a model imagines it, from embedding z (1, D) to goal (1, D); an action is held for a model step."""
    space = action_space([-1.0] * ACTIONS, [1.0] * ACTIONS, horizon, 1).to(z.device)

    def step(x: Tensor, u: Tensor) -> Tensor:
        return model.predictor(x, u.repeat(1, model.chunk))

    def cost(x: Tensor, u: Tensor) -> Tensor:
        del u
        distance = model.slow(x - goal).square().mean(-1)
        return distance.amin(-1) + 0.1 * distance[:, -1]

    energy = LatentEnergy(model, z, goal, metric=model.slow)

    def whole(actions: Tensor) -> Tensor:
        return energy(actions.repeat_interleave(model.chunk, dim=2))

    return Problem("push from pixels", z[0], step, cost, space, whole, {})


def first_push() -> Problem:
    """With the shipped model, from the start of a held-out problem to its goal."""
    model = Checkpoint.load(SHIPPED).model
    env = make("push")
    manifest = make_goals(env, 1, 0)
    latents = []
    for state in (manifest.start[0], manifest.goal[0]):
        env.load_state(state)
        latents.append(model.encode({"pixels": torch.from_numpy(env.observe()["pixels"])[None]}))

    def problem(precision: Precision) -> Problem:
        return push(model.in_precision(precision), *latents, horizon=5)

    exact = problem("fp32")
    variants: dict[str, tuple[Energy | None, Backend]] = {
        "": (None, "eager"),
        WHOLE: (exact.whole, "eager"),
        f"{WHOLE}, bf16": (problem("bf16").whole, "eager"),
    }
    if cpu_has_int8():
        variants[f"{WHOLE}, int8, compiled"] = problem("int8").whole, "inductor"
    return replace(exact, variants=variants)


def ours(name: str, variant: str, problem: Problem, budget: Budget) -> Plan:
    same = {"decay": 1.0} if name == "icem" else {}  # as many samples in every iteration as the others
    energy, backend = problem.variants[variant]
    planner = make_planner(
        name, problem.space, samples=budget.samples, iterations=budget.iterations, sigma=0.5, backend=backend, **same
    )
    energy = energy or problem.steps
    return lambda seed, warm: planner.plan(energy, planner.init(1, seed)).actions[0]


def pytorch_mppi(problem: Problem, budget: Budget, temperature: float) -> Plan:
    from pytorch_mppi import MPPI

    size = problem.space.size

    def plan(seed: int, warm: Tensor) -> Tensor:
        torch.manual_seed(seed)  # it knows no generators
        search: Any = MPPI(
            problem.step,
            lambda x, u: x.new_zeros(len(x)),
            len(problem.start),
            problem.sigma**2 * torch.eye(size, device=problem.device),
            num_samples=budget.samples,
            horizon=problem.space.steps,
            terminal_state_cost=lambda x, u: problem.cost(x[0], u[0]),
            lambda_=temperature,
            u_min=problem.space.low,
            u_max=problem.space.high,
            U_init=warm.clone(),
            device=problem.device,
        )
        for _ in range(budget.iterations):
            search.command(problem.start, shift_nominal_trajectory=False)
        return search.U

    return plan


def torch_world(value: Value, problem: Problem, budget: Budget) -> Plan:
    from torch_world.planning.cem import CEM

    class Model:
        def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
            self.actions = actions
            return torch.cat((z, z.new_empty(len(actions), 1, z.shape[-1])), 1)

        def cost(self, states: Tensor, goal: Tensor) -> Tensor:
            del states, goal
            return value(problem, self.actions)

    bounds = float(problem.space.low[0]), float(problem.space.high[0])
    search: Any = CEM(
        problem.space.steps,
        problem.space.size,
        budget.samples,
        budget.elites,
        budget.iterations,
        problem.sigma,
        bounds,
    )
    start = problem.start[None, None]
    return lambda seed, warm: search(
        Model(), start, start[:, 0], generator=torch.Generator(problem.device).manual_seed(seed)
    )[0]


def stable_worldmodel(name: str, value: Value, problem: Problem, budget: Budget) -> Plan:
    from gymnasium.spaces import Box

    if "stable_worldmodel" not in sys.modules:  # its own __init__ asks for a data base
        found = find_spec("stable_worldmodel")
        stub = types.ModuleType("stable_worldmodel")
        stub.__path__ = list(found.submodule_search_locations or ()) if found else []
        sys.modules["stable_worldmodel"] = stub
    from stable_worldmodel import solver

    class Model:
        def get_cost(self, info: Any, candidates: Tensor) -> Tensor:
            del info
            return value(problem, candidates[0])[None]

    low, high = problem.space.low.cpu().numpy()[None], problem.space.high.cpu().numpy()[None]
    topk = {} if name == "MPPISolver" else {"topk": budget.elites}
    config = types.SimpleNamespace(horizon=problem.space.steps, action_block=1)

    def plan(seed: int, warm: Tensor) -> Tensor:
        search = getattr(solver, name)(
            Model(),
            num_samples=budget.samples,
            n_steps=budget.iterations,
            seed=seed,
            var_scale=problem.sigma,
            device=problem.device,
            **topk,
        )
        search.configure(action_space=Box(low, high), n_envs=1, config=config)
        found = search.solve({"start": problem.start[None]}, init_action=warm[None].clone())["actions"][0]
        return found.to(problem.device)

    return plan


def mbrl(value: Value, problem: Problem, budget: Budget) -> Plan:
    from mbrl.planning.trajectory_opt import CEMOptimizer

    low = problem.space.low.expand(problem.space.steps, -1)
    search = CEMOptimizer(
        budget.iterations,
        0.1,
        budget.samples,
        low.tolist(),
        (-low).tolist(),
        0.0,
        torch.device(problem.device),
        clipped_normal=False,
    )

    def plan(seed: int, warm: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return search.optimize(lambda actions: -value(problem, actions), warm.clone())

    return plan


def pytorch_icem(problem: Problem, budget: Budget) -> Plan:
    from pytorch_icem import iCEM

    size = problem.space.size

    def plan(seed: int, warm: Tensor) -> Tensor:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  its coloured noise knows no generators
        # Its constructor takes actions of size one alone; the fields behind it take any.
        search = iCEM(
            problem.step, problem.cost, len(problem.start), 1, torch.tensor([problem.sigma]), budget.samples,
            budget.elites, problem.space.steps, noise_beta=1, warmup_iters=budget.iterations,
            device=problem.device,
        )  # fmt: skip
        search.nu, search.sigma = size, torch.full((size,), problem.sigma, device=problem.device)
        search.reset()
        search.mean = warm.clone()
        # What it returns is the best plan's first action; the plan itself is its first kept elite.
        search.command(problem.start, shift_nominal_trajectory=False)
        assert search.kept_elites is not None
        return search.kept_elites[0]

    return plan


def stepwise(problem: Problem, actions: Tensor) -> Tensor:
    return problem.value(actions)


def at_once(problem: Problem, actions: Tensor) -> Tensor:
    return problem.whole(actions[None])[0]


TEMPERATURES = (0.001, 0.01, 0.1, 1.0, 10.0)


def peers(temperature: float, value: Value) -> dict[str, Make]:
    """Those that take the cost of whole plans, and, for a stepwise `value`, those that take steps."""
    found: dict[str, Make] = {}
    for name in ("CEMSolver", "ICEMSolver", "MPPISolver"):
        found[f"stable-worldmodel {name.removesuffix('Solver')}"] = partial(stable_worldmodel, name, value)
    if value is stepwise:
        found["pytorch-icem"] = pytorch_icem
        found[f"pytorch-mppi ({temperature:g})"] = partial(pytorch_mppi, temperature=temperature)
    return found | {"mbrl CEM": partial(mbrl, value), "torch-world CEM": partial(torch_world, value)}


def best_temperature(problem: Problem, budget: Budget) -> float:
    plans = {t: pytorch_mppi(problem, budget, t) for t in TEMPERATURES}
    return min(TEMPERATURES, key=lambda t: quality(problem, plans[t], 4))


def cold(problem: Problem) -> Tensor:
    """The plan to start from where there is none before it, (T, A)."""
    return torch.zeros(problem.space.steps, problem.space.size)


def quality(problem: Problem, plan: Plan, seeds: int) -> float:
    """Median cost over seeds of what a planner returns, within the bounds."""
    low, high = problem.space.low, problem.space.high
    plans = torch.stack([plan(s, cold(problem)).detach().reshape(cold(problem).shape) for s in range(seeds)])
    return float(problem.value(plans.clamp(low, high)).median())
