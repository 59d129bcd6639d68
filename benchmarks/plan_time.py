"""Writes docs/performance.md: `python benchmarks/plan_time.py [RUN …] [--peers FILE]`.

Measured on the shipped model of push from pixels: CEM plans against bare rollouts of the same model, candidates and
iterations, in turns, so that whatever else the machine does meets both alike. Each RUN is a folder of `forearm bench`
whose table is added, such as one with a deadline or one over budgets; FILE is what benchmarks/peers.py printed.
`--device cuda` measures on a GPU.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from forearm.commands.doctor import machine
from forearm.evaluation.controllers import action_space
from forearm.evaluation.results import pool, read_results, table
from forearm.files import write_atomic
from forearm.models.checkpoint import Checkpoint
from forearm.models.world_model import WorldModel
from forearm.planner import LatentEnergy, make_planner

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
SHIPPED = ROOT / "models" / "pretrained" / "push-pixels"
REPETITIONS = 30


@dataclass(frozen=True)
class Size:
    """Samples, iterations and model steps of a plan, for how many problems at once."""

    samples: int
    iterations: int
    horizon: int
    problems: int = 1

    def __str__(self) -> str:
        return f"{self.samples} x {self.iterations} x {self.horizon}"


def in_turns(first: Callable[[], object], second: Callable[[], object], device: torch.device) -> torch.Tensor:
    """Seconds (R, 2) of two functions called in turns."""

    def seconds(function: Callable[[], object]) -> float:
        begun = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    for function in (first, second) * 2:
        seconds(function)
    return torch.tensor([[seconds(first), seconds(second)] for _ in range(REPETITIONS)])


@torch.no_grad()
def overhead(model: WorldModel, size: Size, bf16: bool, device: torch.device) -> list[str]:
    """A row: milliseconds of the bare rollouts (median) and of a plan (p50, p95), and their ratio (with quartiles)."""
    model.bf16 = bf16
    space = action_space([-1.0] * 5, [1.0] * 5, size.horizon, model.chunk).to(device)
    planner = make_planner("cem", space, samples=size.samples, iterations=size.iterations)
    generator = torch.Generator(device).manual_seed(0)
    z, goal = torch.randn(2, size.problems, model.architecture.latent, generator=generator, device=device)
    shape = (size.problems, size.samples, space.steps, space.size)
    actions = torch.empty(shape, device=device).uniform_(-1, 1, generator=generator)
    energy = LatentEnergy(model, z, goal, metric=model.metric)
    state = planner.init(size.problems)

    def rollouts() -> None:
        for _ in range(size.iterations):
            model.rollout(z, actions)

    times = in_turns(rollouts, lambda: planner.plan(energy, state), device)
    bare, plan = (1e3 * times.median(0).values).tolist()
    slow = 1e3 * float(times[:, 1].quantile(0.95))
    low, middle, high = (times[:, 1] / times[:, 0]).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    precision = "bf16" if bf16 else "fp32"
    return [
        *(
            str(size),
            str(size.problems),
            precision,
            f"{bare:.1f}",
            f"{plan:.1f} / {slow:.1f}",
            f"{plan / size.problems:.2f}",
        ),
        f"{middle:.3f} ({low:.3f} to {high:.3f})",
    ]


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    model = Checkpoint.load(SHIPPED).model.to(device).eval()
    sizes = [Size(300, 10, 5), Size(128, 5, 5), Size(128, 5, 5, 50)]
    rows = [overhead(model, size, bf16, device) for size in sizes for bf16 in (False, True)]
    header = [
        "samples x iterations x horizon",
        "problems",
        "precision",
        "rollouts ms",
        "plan ms p50 / p95",
        "ms a problem",
        "ratio",
    ]
    facts = [f"- {name}: {fact}" for name, fact in machine().items()]
    parts = [
        "# Performance",
        "This page is written by `python benchmarks/plan_time.py RUN … --peers FILE`, of the folders that the commands "
        "below made.",
        "\n".join([*facts, f"- device: {device}"]),
        "## A CEM plan against bare rollouts of its model",
        "The model of push from pixels that is shipped; plans of samples x iterations x model steps. "
        "Medians; the ratio is of pairs measured in turns, with its "
        "quartiles. Encoding the observation is not in it.",
        markdown(header, rows),
    ]
    for run in arguments.runs:
        found = read_results(run / "results.json")
        first = found.rows[0]
        parts += [
            f"## {first.env} from {first.obs}",
            f"    {found.more['command']}",
            table(pool(found.rows)),
            "\n".join([f"- goals: sha256 {found.manifest}", *(f"- {k}: {v}" for k, v in found.more["facts"].items())]),
        ]
    if arguments.peers:
        what = "What `python benchmarks/peers.py` printed; it says what is the same for all, and how to install them."
        parts += ["## Beside other planners", what, arguments.peers.read_text(encoding="utf-8").strip()]
    write_atomic(PAGE, "\n\n".join(parts).encode() + b"\n")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
