"""Other planners beside ours in one run, on the same dynamics, costs, bounds and numbers of evaluations.

    pip install -c constraints.txt -e .[peers]
    pip install --no-deps torch-world==0.2.0 stable-worldmodel==0.1.1 mbrl==0.2.0 pytorch-icem==0.1.0
    python benchmarks/peers.py

Prints a Markdown table. Every planner starts cold from the middle of the bounds with half their width as standard
deviation, a tenth of its samples as elites, and gets the same samples and iterations; what it returns is clipped to
the bounds (some propose beyond them) and judged by the same cost. Peers that take dynamics step by step get a step
function; so do ours, and in a second row what our seam allows: the future of all candidates as one tensor expression.
The temperature of pytorch-mppi, a raw constant, is the best of five for each problem.
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from forearm.envs import make
from forearm.evaluation.controllers import action_space
from forearm.evaluation.goals import make_goals
from forearm.models.checkpoint import Checkpoint
from forearm.planner import ActionSpace, Energy, LatentEnergy, make_planner
from forearm.planner.problems import PROBLEMS
from torch import Tensor

ROOT = Path(__file__).parent.parent
WHOLE = "one expression"
Cost = Callable[[Tensor, Tensor], Tensor]
Plan = Callable[[], Tensor]


@dataclass(frozen=True)
class Problem:
    """Dynamics step (N, S), (N, A) -> (N, S) from `start` (S,), and cost (N, T, S), (N, T, A) -> (N,); `whole` has the
    same cost as an expression of actions (B, N, T, A) -> (B, N), in words and as a function."""

    name: str
    start: Tensor
    step: Callable[[Tensor, Tensor], Tensor]
    cost: Cost
    space: ActionSpace
    whole: dict[str, Energy]
    optimum: float | None

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


def double_integrator() -> Problem:
    known = PROBLEMS["double_integrator"]()
    a, b = torch.tensor([[1.0, 0.1], [0.0, 1.0]]), torch.tensor([[0.0], [0.1]])
    start = torch.tensor([1.0, 0.0])
    q, final = torch.tensor([1.0, 0.1]), torch.tensor([10.0, 1.0])

    def cost(x: Tensor, u: Tensor) -> Tensor:
        running = (x[:, :-1].square() @ q).sum(-1) + 0.1 * u.square().sum((-1, -2)) + start.square() @ q
        return running + x[:, -1].square() @ final

    return Problem(
        known.name, start, lambda x, u: x @ a.T + u @ b.T, cost, known.space, {WHOLE: known.energy}, known.optimum
    )


def corridor() -> Problem:
    known = PROBLEMS["corridor"]()

    def cost(x: Tensor, u: Tensor) -> Tensor:
        del x  # it is the running sum of the actions, and the known cost takes those
        return known.energy(u[None])[0]

    return Problem(known.name, torch.zeros(1), torch.add, cost, known.space, {WHOLE: known.energy}, known.optimum)


def push() -> Problem:
    """The shipped model of push from pixels, from the start of a held-out problem to its goal."""
    model = Checkpoint.load(ROOT / "models" / "pretrained" / "push-pixels").model.eval()
    env = make("push")
    manifest = make_goals(env, 1, 0)
    latents = []
    for state in (manifest.start[0], manifest.goal[0]):
        env.load_state(state)
        latents.append(model.encode({"pixels": torch.from_numpy(env.observe()["pixels"])[None]}).detach())
    z, goal = latents
    space = action_space([-1.0] * 10, [1.0] * 10, 5, 1)  # a model step's two actions side by side
    energy = LatentEnergy(model, z, goal, reduce="path", metric=model.metric)

    def cost(x: Tensor, u: Tensor) -> Tensor:
        del u
        distance = ((x - goal) @ model.metric).square().mean(-1)
        return distance.mean(-1) + 0.1 * distance[:, -1]

    def whole(bf16: bool, actions: Tensor) -> Tensor:
        model.bf16 = bf16
        return energy(actions.unflatten(-1, (model.chunk, -1)).flatten(2, 3))

    expressions: dict[str, Energy] = {WHOLE: partial(whole, False), f"{WHOLE}, bf16": partial(whole, True)}
    return Problem("push from pixels", z[0], model.predictor, cost, space, expressions, None)


def ours(problem: Problem, name: str, samples: int, iterations: int, seed: int, expression: str | None) -> Plan:
    same = {"decay": 1.0} if name == "icem" else {}  # as many samples in every iteration as the others
    planner = make_planner(name, problem.space, samples=samples, iterations=iterations, sigma=0.5, **same)

    def steps(actions: Tensor) -> Tensor:
        return problem.value(actions[0])[None]

    energy = problem.whole[expression] if expression else steps
    return lambda: planner.plan(energy, planner.init(1, seed)).actions[0]


def pytorch_mppi(problem: Problem, samples: int, iterations: int, seed: int, temperature: float) -> Plan:
    from pytorch_mppi import MPPI

    size = problem.space.size

    def plan() -> Tensor:
        torch.manual_seed(seed)  # it knows no generators
        search = MPPI(
            problem.step,
            lambda x, u: torch.zeros(len(x)),
            len(problem.start),
            problem.sigma**2 * torch.eye(size),
            num_samples=samples,
            horizon=problem.space.steps,
            terminal_state_cost=lambda x, u: problem.cost(x[0], u[0]),
            lambda_=temperature,
            u_min=problem.space.low,
            u_max=problem.space.high,
            U_init=torch.zeros(problem.space.steps, size),
        )
        for _ in range(iterations):
            search.command(problem.start, shift_nominal_trajectory=False)
        return search.U

    return plan


def torch_world(problem: Problem, samples: int, iterations: int, seed: int) -> Plan:
    from torch_world.planning.cem import CEM

    class Model:
        def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
            self.actions = actions
            return torch.cat([z, problem.rollout(actions, z[:, 0])], 1)

        def cost(self, states: Tensor, goal: Tensor) -> Tensor:
            del goal
            return problem.cost(states[:, 1:], self.actions)

    bounds = float(problem.space.low[0]), float(problem.space.high[0])
    search: Any = CEM(
        problem.space.steps, problem.space.size, samples, max(2, samples // 10), iterations, problem.sigma, bounds
    )
    start = problem.start[None, None]
    return lambda: search(Model(), start, start[:, 0], generator=torch.Generator().manual_seed(seed))[0]


def stable_worldmodel(problem: Problem, name: str, samples: int, iterations: int, seed: int) -> Plan:
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
            return problem.value(candidates[0])[None]

    low, high = problem.space.low.numpy()[None], problem.space.high.numpy()[None]
    settings = {"num_samples": samples, "n_steps": iterations, "seed": seed, "var_scale": problem.sigma}
    topk = {} if name == "MPPISolver" else {"topk": max(2, samples // 10)}
    config = types.SimpleNamespace(horizon=problem.space.steps, action_block=1)

    def plan() -> Tensor:
        search = getattr(solver, name)(Model(), **settings, **topk)
        search.configure(action_space=Box(low, high), n_envs=1, config=config)
        return search.solve({"start": problem.start[None]})["actions"][0]

    return plan


def mbrl(problem: Problem, samples: int, iterations: int, seed: int) -> Plan:
    from mbrl.planning.trajectory_opt import CEMOptimizer

    low = problem.space.low.expand(problem.space.steps, -1)
    search = CEMOptimizer(
        iterations, 0.1, samples, low.tolist(), (-low).tolist(), 0.0, torch.device("cpu"), clipped_normal=False
    )

    def plan() -> Tensor:
        torch.manual_seed(seed)
        return search.optimize(lambda actions: -problem.value(actions), torch.zeros_like(low))

    return plan


def pytorch_icem(problem: Problem, samples: int, iterations: int, seed: int) -> Plan:
    from pytorch_icem import iCEM

    size = problem.space.size

    def plan() -> Tensor:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  its coloured noise knows no generators
        # Its constructor takes actions of size one alone; the fields behind it take any.
        search = iCEM(
            problem.step, problem.cost, len(problem.start), 1, torch.tensor([problem.sigma]), samples,
            max(2, samples // 10), problem.space.steps, noise_beta=1, warmup_iters=iterations,
        )  # fmt: skip
        search.nu, search.sigma = size, torch.full((size,), problem.sigma)
        search.reset()
        # What it returns is the best plan's first action; the plan itself is its first kept elite.
        search.command(problem.start, shift_nominal_trajectory=False)
        assert search.kept_elites is not None
        return search.kept_elites[0]

    return plan


TEMPERATURES = (0.001, 0.01, 0.1, 1.0, 10.0)


def planners(problem: Problem, samples: int, iterations: int, seeds: int) -> dict[str, Callable[[int], Plan]]:
    """All planners by name, as functions of a seed."""
    temperature = min(
        TEMPERATURES,
        key=lambda t: quality(problem, lambda s: pytorch_mppi(problem, samples, iterations, s, t), min(4, seeds)),
    )
    found: dict[str, Callable[[int], Plan]] = {}
    for name in ("cem", "icem", "mppi"):
        for expression in (None, *problem.whole):
            label = f"**forearm {name}**{f', {expression}' if expression else ''}"
            found[label] = lambda s, n=name, e=expression: ours(problem, n, samples, iterations, s, e)
    found[f"pytorch-mppi ({temperature:g})"] = lambda s: pytorch_mppi(problem, samples, iterations, s, temperature)
    found["torch-world CEM"] = lambda s: torch_world(problem, samples, iterations, s)
    for name in ("CEMSolver", "ICEMSolver", "MPPISolver"):
        found[f"stable-worldmodel {name.removesuffix('Solver')}"] = lambda s, n=name: stable_worldmodel(
            problem, n, samples, iterations, s
        )
    found["mbrl CEM"] = lambda s: mbrl(problem, samples, iterations, s)
    found["pytorch-icem"] = lambda s: pytorch_icem(problem, samples, iterations, s)
    return found


def quality(problem: Problem, plan: Callable[[int], Plan], seeds: int) -> float:
    """Median cost over seeds of what a planner returns, within the bounds."""
    low, high = problem.space.low, problem.space.high
    plans = torch.stack([plan(seed)().detach().reshape(problem.space.steps, -1) for seed in range(seeds)])
    return float(problem.value(plans.clamp(low, high)).median())


def times(plans: dict[str, Plan], repetitions: int) -> dict[str, float]:
    """Median milliseconds of each, called in turns so that all meet the same machine."""
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(repetitions + 2):
        for name, plan in plans.items():
            begun = time.perf_counter()
            plan()
            seconds[name].append(time.perf_counter() - begun)
    return {name: 1e3 * float(np.median(values[2:])) for name, values in seconds.items()}


@torch.no_grad()
def compare(problem: Problem, samples: int, iterations: int, seeds: int, repetitions: int) -> str:
    with contextlib.redirect_stdout(io.StringIO()):  # some print
        found = planners(problem, samples, iterations, seeds)
        costs = {name: quality(problem, plan, seeds) for name, plan in found.items()}
        spent = times({name: plan(0) for name, plan in found.items()}, repetitions)
    fastest = min(ms for name, ms in spent.items() if "forearm" not in name)
    lines = [
        f"### {problem.name}: {samples} x {iterations} = {samples * iterations:,} evaluations",
        "",
        f"| planner | cost, median of {seeds} seeds | above the optimum | plan ms | of the fastest peer's |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, cost in costs.items():
        gap = "-" if problem.optimum is None else f"{100 * (cost / problem.optimum - 1):.2f} %"
        lines.append(f"| {name} | {cost:.4g} | {gap} | {spent[name]:.2f} | {spent[name] / fastest:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--repetitions", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for problem, samples, iterations in (
        (double_integrator(), 64, 4),
        (double_integrator(), 256, 12),
        (corridor(), 256, 12),
        (push(), 300, 10),
    ):
        print(compare(problem, samples, iterations, arguments.seeds, arguments.repetitions), flush=True)
        print()


if __name__ == "__main__":
    main()
