"""What a plan takes beside what its model takes: measured in turns, so that the machine's moods meet both alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..models.precision import Precision
from ..models.world_model import WorldModel
from ..planner import LatentEnergy, make_planner
from ..planner.capture import record_graph
from ..planner.compilation import Backend
from .results import markdown
from .settings import action_space

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "_int_mm"}
"""The operators of torch in which a model multiplies matrices."""
WARM_UP = 2
"""Rounds before those that count: a plan that can be recorded is in the second."""
FEWEST = 3
"""Rounds that count, however long they take."""


@dataclass(frozen=True)
class PlanTime:
    """CEM plans of `samples` x `iterations` x `horizon` model steps for `problems` at once, all in milliseconds.

    `products_ms` are the model's matrix products alone, `rollouts_ms` its bare rollouts (medians both); `ratio` is of a
    plan to its rollouts, median and quartiles of pairs. `backend` is what ran the plan: "eager" also where it did not
    compile.
    """

    samples: int
    iterations: int
    horizon: int
    problems: int
    precision: str
    backend: str
    products_ms: float
    rollouts_ms: float
    plan_ms_p50: float
    plan_ms_p95: float
    ratio: float
    ratio_quartiles: tuple[float, float]


class Products(TorchDispatchMode):
    """Remembers every product of matrices that is computed under it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket.__name__ in PRODUCTS:
            self.calls.append(lambda: func(*args, **kwargs))
        return func(*args, **kwargs)


@torch.no_grad()
def time_plans(
    model: WorldModel,
    samples: int,
    iterations: int,
    horizon: int,
    problems: int = 1,
    *,
    precision: Precision,
    backend: Backend = "eager",
    repetitions: int = 30,
    limit: float = math.inf,
) -> PlanTime:
    """Measures on the device that the model is on, without encoding; where the plan is recorded on a GPU, its products
    and bare rollouts are as well. `repetitions` and `limit` are those of `in_turns`."""
    model = model.in_precision(precision)
    device = model.metric.device
    size = model.architecture.action_size
    space = action_space([-1.0] * size, [1.0] * size, horizon, model.chunk).to(device)
    planner = make_planner("cem", space, samples=samples, iterations=iterations, backend=backend)
    generator = torch.Generator(device).manual_seed(0)
    z, goal = torch.randn(2, problems, model.architecture.latent, generator=generator, device=device)
    actions = torch.empty((problems, samples, space.steps, size), device=device).uniform_(-1, 1, generator=generator)
    energy = LatentEnergy(model, z, goal, metric=model.slow)
    state = planner.init(problems)
    with Products() as products:
        model.rollout(z, actions[:, :, : model.chunk])

    def multiply() -> None:
        for _ in range(iterations * horizon):
            for product in products.calls:
                product()

    def rollouts() -> None:
        for _ in range(iterations):
            model.rollout(z, actions)

    bare: list[Callable[[], object]] = [multiply, rollouts]
    if device.type == "cuda" and backend != "eager":
        bare = [record_graph(function) for function in bare]
    seconds = in_turns([*bare, lambda: planner.plan(energy, state)], device, repetitions, limit=limit)
    alone, rolled, plan = (1e3 * seconds.median(0).values).tolist()
    low, middle, high = (seconds[:, 2] / seconds[:, 1]).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return PlanTime(
        samples=samples,
        iterations=iterations,
        horizon=horizon,
        problems=problems,
        precision=precision,
        backend=planner.plan(energy, state).stats.backend,
        products_ms=alone,
        rollouts_ms=rolled,
        plan_ms_p50=plan,
        plan_ms_p95=1e3 * float(seconds[:, 2].quantile(0.95)),
        ratio=middle,
        ratio_quartiles=(low, high),
    )


def in_turns(
    functions: Sequence[Callable[[], object]],
    device: torch.device,
    repetitions: int,
    calls: int = 1,
    limit: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Tensor:
    """Seconds (R, functions) a call of functions whose turns of so many calls alternate, after `WARM_UP` rounds.

    R is `repetitions`, or fewer, but at least `FEWEST`, where `limit` seconds have gone by before another would begin.
    """

    def seconds(function: Callable[[], object]) -> float:
        begun = clock()
        for _ in range(calls):
            function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (clock() - begun) / calls

    start = clock()
    rounds: list[list[float]] = []
    while len(rounds) < WARM_UP + repetitions and (len(rounds) < WARM_UP + FEWEST or clock() - start < limit):
        rounds.append([seconds(function) for function in functions])
    return torch.tensor(rounds[WARM_UP:])


def time_table(times: Sequence[PlanTime]) -> str:
    """A Markdown table."""
    header = ["samples x iterations x horizon", "run", "problems", "products ms", "rollouts ms", "plan ms p50 / p95"]
    header += ["ms a problem", "plan / rollouts"]
    rows = [
        [
            f"{t.samples} x {t.iterations} x {t.horizon}",
            f"{t.precision}, {t.backend}",
            str(t.problems),
            f"{t.products_ms:.1f}",
            f"{t.rollouts_ms:.1f}",
            f"{t.plan_ms_p50:.1f} / {t.plan_ms_p95:.1f}",
            f"{t.plan_ms_p50 / t.problems:.2f}",
            "{:.3f} ({:.3f} to {:.3f})".format(t.ratio, *t.ratio_quartiles),
        ]
        for t in times
    ]
    return markdown([header, *rows], 2)
