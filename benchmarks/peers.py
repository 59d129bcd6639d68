"""Other planners beside ours in one run, on the same dynamics, costs, bounds and numbers of evaluations.

    pip install -c constraints.txt -e .[peers]
    pip install --no-deps torch-world==0.2.0 stable-worldmodel==0.1.1 mbrl==0.2.0 pytorch-icem==0.1.0
    python benchmarks/peers.py
    python benchmarks/peers.py --closed-loop OUT [--device cuda]

The first prints Markdown tables. Every planner starts cold from the middle of the bounds with half their width as
standard deviation, a tenth of its samples as elites, and gets the same samples and iterations; what it returns is
clipped to the bounds (some propose beyond them) and judged by the same cost. Dynamics are a step function, or, where a
planner takes the cost of whole plans, the future of all candidates as one tensor expression. The temperature of
pytorch-mppi, a raw constant, is the best of five for each problem.

The second puts them on held-out goals of push from pixels and writes OUT/results.json and OUT/success.png. All plan
with the shipped model (or each of `--checkpoints`, told apart by their predictors) and the same energy, start from
their last plan, shifted, where they can (torch-world cannot), and execute one step of each plan; ours roll out in
bfloat16 where that pays, once as they are and once compiled, that also in 8-bit integers where the CPU has them, or, on
a GPU, replayed as a CUDA graph, and that with fused kernels; and the last of these also so that what is at hand is
looked at first, with keeping still among it, and not every plan searches. It takes more than an hour and goes on where
it was stopped; when all rows are there, the first ten goals are run alone, planner after planner, and all plans timed,
encoding included.
"""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from forearm.envs import World, make
from forearm.evaluation.bench import Entry, run_entry, warm_up
from forearm.evaluation.closed_loop import Batch, run_episodes
from forearm.evaluation.controllers import SEEDS, LatentMPC, Learned, tensors
from forearm.evaluation.goals import GoalManifest, make_goals
from forearm.evaluation.plots import success_against_cost
from forearm.evaluation.results import Row, markdown, plan_times, read_results, table, write_results
from forearm.evaluation.settings import PlannerSettings, PlanningSettings, action_space
from forearm.evaluation.timing import in_turns
from forearm.machine import machine
from forearm.models.checkpoint import Checkpoint
from forearm.models.precision import cpu_has_int8
from forearm.models.world_model import WorldModel
from forearm.planner import CEM
from forearm.planner.compilation import Backend
from peer_planners import (
    ACTIONS,
    SHIPPED,
    WHOLE,
    Budget,
    Make,
    Plan,
    Problem,
    at_once,
    best_temperature,
    cold,
    corridor,
    double_integrator,
    first_push,
    ours,
    peers,
    push,
    quality,
    stepwise,
)

HORIZON = 6


BUDGETS = tuple(Budget(*size) for size in ((32, 2), (32, 3), (40, 3), (48, 3), (64, 3), (64, 4), (128, 5)))
"""In closed loop."""
EVENT_TRIGGERED = {"replan_above": 0.1}  # chosen on other goals (docs/ablations.md)
WAYS: dict[str, dict[str, tuple[Backend, str, dict[str, float]]]] = {
    "cpu": {
        "": ("eager", "auto", {}),
        ", compiled": ("inductor", "auto", {}),
        **({", compiled, int8": ("inductor", "int8", {})} if cpu_has_int8() else {}),
        ", compiled, event-triggered": ("inductor", "int8" if cpu_has_int8() else "auto", EVENT_TRIGGERED),
    },
    "cuda": {
        "": ("eager", "auto", {}),
        ", replayed": ("cudagraphs", "auto", {}),
        ", fused": ("inductor", "auto", {}),
        ", fused, event-triggered": ("inductor", "auto", EVENT_TRIGGERED),
    },
}
"""In which ours plan in closed loop, by the device: backend, precision and further settings."""
TIMED = 10
"""Goals whose episodes are timed."""
ONE_OF_EACH = "stable-worldmodel CEM,pytorch-icem,pytorch-mppi,mbrl,torch-world"
CALLS = 10
"""Plans of an analytic problem in one turn: of fractions of a millisecond, the first after others pays for the caches
that they emptied."""


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
        self.device = str(model.metric.device)
        self.evaluations = budget.samples * budget.iterations

    @torch.no_grad()
    def begin(self, manifest: GoalManifest, goals: Batch, seed: int) -> None:
        self._goals = self.model.encode(tensors(self.model, goals, self.device))
        held = action_space([-1.0] * ACTIONS, [1.0] * ACTIONS, HORIZON, self.model.chunk).to(self.device)
        self._shift = partial(held.shift, executed=1)
        self._warm = [self._goals.new_zeros(HORIZON, ACTIONS) for _ in self._goals]
        self._seed = seed * SEEDS

    @torch.no_grad()
    def act(self, observations: Batch, states: np.ndarray) -> np.ndarray:
        del states
        latents = self.model.encode(tensors(self.model, observations, self.device))
        actions = []
        for b, (z, goal) in enumerate(zip(latents, self._goals, strict=True)):
            plan = self.make_plan(push(self.model, z[None], goal[None], HORIZON), self.budget)
            knots = plan(self._seed, self._warm[b]).detach().reshape(HORIZON, ACTIONS).clamp(-1, 1)
            self._seed += 1
            self._warm[b] = self._shift(knots)
            actions.append(knots[:1].cpu().numpy())
        return np.stack(actions)


def closed_loop(
    out: Path, goals: int, chosen: list[str], budgets: list[Budget], device: str, checkpoints: list[Path]
) -> None:
    """Success of ours and of the chosen peers at several budgets, on the same held-out goals; rows that are there
    already stay."""
    env = make("push")
    manifest = make_goals(env, goals, 0)
    temperature = best_temperature(first_push(), BUDGETS[-1])
    entries = []
    ways = WAYS[device]
    # Of each model one for each precision, and the peers' own.
    users = ["peers", *{precision for _, precision, _ in ways.values()}]
    models = [{user: Checkpoint.load(folder, device).model for user in users} for folder in checkpoints]
    for of, budget in product(models, budgets):
        model = of["peers"]
        size = "{width} x {depth}".format(**model.architecture.predictor_settings)
        predictor = f", predictor {size}" if len(checkpoints) > 1 else ""
        labels = {"samples": budget.samples, "iterations": budget.iterations, "horizon": HORIZON, "energy": "mse, min"}
        for words, (backend, precision, more) in ways.items():
            search = CEM(samples=budget.samples, iterations=budget.iterations, backend=backend, **more)
            planner = PlannerSettings(search=search, horizon=HORIZON, hold=bool(more))
            mine = LatentMPC(
                env, Learned(of[precision]), PlanningSettings(planner=planner, precision=precision), device
            )
            entries.append(Entry("forearm cem" + words + predictor, "planner", mine, [0], timed=False, labels=labels))
        for name, make_plan in peers(temperature, stepwise).items():
            if any(name.startswith(word) for word in chosen):
                peer = Peer(model, make_plan, budget)
                entries.append(Entry(name + predictor, "planner", peer, [0], timed=False, labels=labels))
    facts = {**machine(), "device": device, "episodes": f"{manifest.budget} steps, one executed of each plan"}
    command = f'python benchmarks/peers.py --closed-loop OUT --goals {goals} --peers "{",".join(chosen)}"'
    if budgets != list(BUDGETS):
        command += f" --budgets {_sizes(budgets)}"
    if [folder.resolve() for folder in checkpoints] != [SHIPPED]:
        command += " --checkpoints " + ",".join(
            f"models/pretrained/{folder.name}" if folder.resolve().parent == SHIPPED.parent else f"RUN/{folder.name}"
            for folder in checkpoints
        )
    if device != "cpu":
        command += f" --device {device}"
    results = out / "results.json"
    rows = list(read_results(results).rows) if results.exists() else []
    for entry in entries:
        if _key(entry) in _by_key(rows):
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            rows += run_entry(env, manifest, "pixels", entry)[0]
        print(table(rows[-1:]).splitlines()[-1], flush=True)
        write_results(results, rows, manifest.sha256, command=command, facts=facts)
    measured = timed(rows, entries, env, manifest.first(min(TIMED, goals)))
    rows = list((_by_key(rows) | _by_key(measured)).values())
    write_results(results, rows, manifest.sha256, command=command, facts=facts)
    print(table(measured))
    success_against_cost(measured, out / "success.png")


def _sizes(budgets: Sequence[Budget]) -> str:
    return ",".join(f"{budget.samples}x{budget.iterations}" for budget in budgets)


def _key(entry: Entry) -> tuple[str, int, int]:
    return entry.name, entry.labels["samples"], entry.labels["iterations"]


def _by_key(rows: list[Row]) -> dict[tuple[str, int | None, int | None], Row]:
    return {(row.planner, row.samples, row.iterations): row for row in rows}


def timed(rows: list[Row], entries: list[Entry], env: World, goals: GoalManifest) -> list[Row]:
    """The entries' rows with what plans take, in episodes that meet one goal alone; the entries in turns."""
    found = _by_key(rows)
    spent: dict[tuple[str, int, int], list[float]] = {_key(entry): [] for entry in entries}
    alone = goals.singles()
    with contextlib.redirect_stdout(io.StringIO()):
        for entry in entries:
            warm_up(env, goals, entry.controller)
        for goal, entry in product(alone, entries):
            spent[_key(entry)] += run_episodes(env, goal, entry.controller, 0).act_seconds
    measured = []
    for key, seconds in spent.items():
        ms = 1e3 * np.array(seconds)
        measured.append(replace(found[key], **plan_times(ms), plan_ms_mean=float(ms.mean())))
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--closed-loop", type=Path, metavar="OUT")
    parser.add_argument("--goals", type=int, default=50)
    parser.add_argument("--peers", default=ONE_OF_EACH, help="of the closed loop: beginnings of names")
    parser.add_argument("--budgets", default=_sizes(BUDGETS), help="likewise")
    parser.add_argument("--checkpoints", default=str(SHIPPED), help="likewise: folders, of predictors that differ")
    parser.add_argument("--device", default="cpu", choices=list(WAYS), help="likewise")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.closed_loop:
        sizes = [word.split("x") for word in arguments.budgets.split(",")]
        budgets = [Budget(int(samples), int(iterations)) for samples, iterations in sizes]
        chosen, checkpoints = arguments.peers.split(","), [Path(folder) for folder in arguments.checkpoints.split(",")]
        closed_loop(arguments.closed_loop, arguments.goals, chosen, budgets, arguments.device, checkpoints)
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
