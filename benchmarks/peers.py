"""Other planners beside ours in one run, on the same dynamics, costs, bounds and numbers of evaluations.

    pip install -c constraints.txt -e .[peers]
    pip install --no-deps torch-world==0.2.0 stable-worldmodel==0.1.1 mbrl==0.2.0 pytorch-icem==0.1.0
    python benchmarks/peers.py
    python benchmarks/peers.py --closed-loop OUT

The first prints Markdown tables. Every planner starts cold from the middle of the bounds with half their width as
standard deviation, a tenth of its samples as elites, and gets the same samples and iterations; what it returns is
clipped to the bounds (some propose beyond them) and judged by the same cost. Dynamics are a step function, or, where a
planner takes the cost of whole plans, the future of all candidates as one tensor expression. The temperature of
pytorch-mppi, a raw constant, is the best of five for each problem.

The second puts them on held-out goals of push from pixels and writes OUT/results.json and OUT/success.png. All plan
with the shipped model and the same energy, start from their last plan, shifted, where they can (torch-world cannot),
and execute one step of each plan; ours roll out in bfloat16. It takes an hour and goes on where it was stopped; when
all rows are there, the first plan of each is timed, in turns, encoding included.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import contextlib
import io
import sys
import types
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from forearm.commands.doctor import machine
from forearm.envs import World, make
from forearm.evaluation.bench import Entry, run_entry
from forearm.evaluation.closed_loop import Batch, observe_goals, stack
from forearm.evaluation.controllers import SEEDS, Imagination, action_space
from forearm.evaluation.goals import GoalManifest, make_goals
from forearm.evaluation.plots import success_against_cost
from forearm.evaluation.results import Row, markdown, read_results, table, write_results
from forearm.evaluation.timing import in_turns
from forearm.models.checkpoint import Checkpoint
from forearm.models.world_model import WorldModel
from forearm.planner import ActionSpace, Energy, LatentEnergy, make_planner
from forearm.planner.compilation import Backend
from forearm.planner.problems import PROBLEMS
from torch import Tensor

SHIPPED = Path(__file__).parent.parent / "models" / "pretrained" / "push-pixels"
WHOLE = ", one expression"
ACTIONS, HORIZON = 5, 6


class Budget(NamedTuple):
    samples: int
    iterations: int

    @property
    def elites(self) -> int:
        return max(2, self.samples // 10)

    def __str__(self) -> str:
        return f"{self.samples} x {self.iterations} = {self.samples * self.iterations:,}"


BUDGETS = (Budget(32, 2), Budget(48, 3), Budget(64, 3), Budget(64, 4), Budget(128, 5))
"""In closed loop."""
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
    space = action_space([-1.0] * ACTIONS, [1.0] * ACTIONS, horizon, 1)

    def step(x: Tensor, u: Tensor) -> Tensor:
        return model.predictor(x, u.repeat(1, model.chunk))

    def cost(x: Tensor, u: Tensor) -> Tensor:
        del u
        distance = model.slow(x - goal).square().mean(-1)
        return distance.amin(-1) + 0.1 * distance[:, -1]

    narrow = deepcopy(model)
    narrow.multiply_in_bf16(True)
    exact, rough = (LatentEnergy(imagines, z, goal, metric=model.slow) for imagines in (model, narrow))

    def whole(energy: Energy, actions: Tensor) -> Tensor:
        return energy(actions.repeat_interleave(model.chunk, dim=2))

    variants: dict[str, tuple[Energy | None, Backend]] = {
        "": (None, "eager"),
        WHOLE: (partial(whole, exact), "eager"),
        f"{WHOLE}, bf16": (partial(whole, rough), "eager"),
    }
    return Problem("push from pixels", z[0], step, cost, space, partial(whole, exact), variants)


def first_push() -> Problem:
    """With the shipped model, from the start of a held-out problem to its goal."""
    model = Checkpoint.load(SHIPPED).model
    env = make("push")
    manifest = make_goals(env, 1, 0)
    latents = []
    for state in (manifest.start[0], manifest.goal[0]):
        env.load_state(state)
        latents.append(model.encode({"pixels": torch.from_numpy(env.observe()["pixels"])[None]}))
    return push(model, *latents, horizon=5)


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
        search = MPPI(
            problem.step,
            lambda x, u: torch.zeros(len(x)),
            len(problem.start),
            problem.sigma**2 * torch.eye(size),
            num_samples=budget.samples,
            horizon=problem.space.steps,
            terminal_state_cost=lambda x, u: problem.cost(x[0], u[0]),
            lambda_=temperature,
            u_min=problem.space.low,
            u_max=problem.space.high,
            U_init=warm.clone(),
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
    return lambda seed, warm: search(Model(), start, start[:, 0], generator=torch.Generator().manual_seed(seed))[0]


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

    low, high = problem.space.low.numpy()[None], problem.space.high.numpy()[None]
    topk = {} if name == "MPPISolver" else {"topk": budget.elites}
    config = types.SimpleNamespace(horizon=problem.space.steps, action_block=1)

    def plan(seed: int, warm: Tensor) -> Tensor:
        search = getattr(solver, name)(
            Model(),
            num_samples=budget.samples,
            n_steps=budget.iterations,
            seed=seed,
            var_scale=problem.sigma,
            **topk,
        )
        search.configure(action_space=Box(low, high), n_envs=1, config=config)
        return search.solve({"start": problem.start[None]}, init_action=warm[None].clone())["actions"][0]

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
        torch.device("cpu"),
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
        )  # fmt: skip
        search.nu, search.sigma = size, torch.full((size,), problem.sigma)
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


ONE_OF_EACH = "stable-worldmodel CEM,pytorch-icem,pytorch-mppi,mbrl,torch-world"
CALLS = 10
"""Plans of an analytic problem in one turn: of fractions of a millisecond, the first after others pays for the caches
that they emptied."""
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


def times(problem: Problem, plans: dict[str, Plan], repetitions: int) -> dict[str, float]:
    """Median milliseconds of each, called in turns, `CALLS` times a turn."""
    calls = [partial(plan, 0, cold(problem)) for plan in plans.values()]
    seconds = in_turns(calls, torch.device("cpu"), repetitions, 1 if problem.optimum is None else CALLS)
    return dict(zip(plans, (1e3 * seconds.median(0).values).tolist(), strict=True))


@torch.no_grad()
def compare(problem: Problem, budget: Budget, seeds: int, repetitions: int) -> str:
    plans: dict[str, Plan] = {}
    with contextlib.redirect_stdout(io.StringIO()):  # some print
        for name, variant in product(("cem", "icem", "mppi"), problem.variants):
            plans[f"**forearm {name}**{variant}"] = ours(name, variant, problem, budget)
        temperature = best_temperature(problem, budget)
        for value, words in ((stepwise, ""), (at_once, WHOLE)):
            for name, make_plan in peers(temperature, value).items():
                plans[name + words] = make_plan(problem, budget)
        costs = {name: quality(problem, plan, seeds) for name, plan in plans.items()}
        spent = times(problem, plans, repetitions)
    fastest = min(ms for name, ms in spent.items() if "forearm" not in name)
    header = ["planner", f"cost, median of {seeds} seeds", "above the optimum", "plan ms", "of the fastest peer's"]
    rows = [
        [
            name,
            f"{cost:.4g}",
            "-" if problem.optimum is None else f"{100 * (cost / problem.optimum - 1):.2f} %",
            f"{spent[name]:.2f}",
            f"{spent[name] / fastest:.2f}",
        ]
        for name, cost in costs.items()
    ]
    return f"### {problem.name}: {budget} evaluations\n\n{markdown([header, *rows], 1)}\n"


class Peer:
    """A peer as a controller of the closed loop; it plans for one problem after the other."""

    def __init__(self, model: WorldModel, make_plan: Make, budget: Budget) -> None:
        self.model, self.make_plan, self.budget = model, make_plan, budget
        self.evaluations = budget.samples * budget.iterations

    @torch.no_grad()
    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        self._goals = self.model.encode({"pixels": torch.from_numpy(goals["pixels"])})
        held = action_space([-1.0] * ACTIONS, [1.0] * ACTIONS, HORIZON, self.model.chunk)
        self._shift = partial(held.shift, executed=1)
        self._warm = [torch.zeros(HORIZON, ACTIONS) for _ in self._goals]
        self._seed = seed * SEEDS

    @torch.no_grad()
    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del states
        latents = self.model.encode({"pixels": torch.from_numpy(observations["pixels"])})
        actions = []
        for b, (z, goal) in enumerate(zip(latents, self._goals, strict=True)):
            plan = self.make_plan(push(self.model, z[None], goal[None], HORIZON), self.budget)
            knots = plan(self._seed, self._warm[b]).detach().reshape(HORIZON, ACTIONS).clamp(-1, 1)
            self._seed += 1
            self._warm[b] = self._shift(knots)
            actions.append(knots[:1].numpy())
        return np.stack(actions)


def closed_loop(out: Path, goals: int, chosen: list[str]) -> None:
    """Success of ours and of the chosen peers at several budgets, on the same held-out goals; rows that are there
    already stay."""
    env = make("push")
    model, theirs = (Checkpoint.load(SHIPPED).model for _ in range(2))  # ours multiplies in bfloat16
    manifest = make_goals(env, goals, 0)
    space = action_space([-1.0] * ACTIONS, [1.0] * ACTIONS, HORIZON, model.chunk)
    temperature = best_temperature(first_push(), BUDGETS[-1])
    entries = []
    for budget in BUDGETS:
        labels = {"samples": budget.samples, "iterations": budget.iterations, "horizon": HORIZON, "energy": "mse, min"}
        planner = make_planner("cem", space, samples=budget.samples, iterations=budget.iterations)
        mine = Imagination(env, model, planner, {}, precision="bf16", execute_steps=1)
        entries.append(Entry("forearm cem", "planner", mine, [0], timed=False, labels=labels))
        for name, make_plan in peers(temperature, stepwise).items():
            if any(name.startswith(word) for word in chosen):
                peer = Peer(theirs, make_plan, budget)
                entries.append(Entry(name, "planner", peer, [0], timed=False, labels=labels))
    facts = {**machine(), "episodes": f"{manifest.budget} steps, one executed of each plan"}
    command = f'python benchmarks/peers.py --closed-loop OUT --goals {goals} --peers "{",".join(chosen)}"'
    results = out / "results.json"
    rows = list(read_results(results).rows) if results.exists() else []
    for entry in entries:
        if _key(entry) in _by_key(rows):
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            rows += run_entry(env, manifest, "pixels", entry)[0]
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        write_results(results, rows, manifest.sha256, command=command, facts=facts)
    rows = timed(rows, entries, env, manifest.first(1))
    write_results(results, rows, manifest.sha256, command=command, facts=facts)
    print(table(rows))
    success_against_cost(rows, out / "success.png")


def _key(entry: Entry) -> tuple[str, int, int]:
    return entry.name, entry.labels["samples"], entry.labels["iterations"]


def _by_key(rows: list[Row]) -> dict[tuple[str, int | None, int | None], Row]:
    return {(row.planner, row.samples, row.iterations): row for row in rows}


def timed(rows: list[Row], entries: list[Entry], env: World, first: GoalManifest) -> list[Row]:
    """The entries' rows with what the first plan for the first goal takes, in turns."""
    found = _by_key(rows)
    rows = [found[_key(entry)] for entry in entries]
    goals = observe_goals(env, first)
    env.load_state(first.start[0])
    seen = stack([env.observe()])
    for entry in entries:
        entry.controller.begin(first, goals, 0)
    calls = [partial(entry.controller.act, seen, first.start) for entry in entries]
    with contextlib.redirect_stdout(io.StringIO()):
        spent = 1e3 * in_turns(calls, torch.device("cpu"), 20)
    p50, p95 = spent.quantile(0.5, dim=0).tolist(), spent.quantile(0.95, dim=0).tolist()
    return [replace(row, plan_ms_p50=p50[i], plan_ms_p95=p95[i]) for i, row in enumerate(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--closed-loop", type=Path, metavar="OUT")
    parser.add_argument("--goals", type=int, default=50)
    parser.add_argument("--peers", default=ONE_OF_EACH, help="of the closed loop: beginnings of names")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.closed_loop:
        closed_loop(arguments.closed_loop, arguments.goals, arguments.peers.split(","))
        return
    problems = (
        (double_integrator(), Budget(64, 4)),
        (double_integrator(matrices=True), Budget(64, 4)),
        (double_integrator(), Budget(256, 12)),
        (corridor(), Budget(256, 12)),
        (first_push(), Budget(300, 10)),
    )
    for problem, budget in problems:
        seeds = arguments.seeds if problem.optimum is not None else min(arguments.seeds, 8)
        print(compare(problem, budget, seeds, arguments.repetitions), flush=True)


if __name__ == "__main__":
    main()
