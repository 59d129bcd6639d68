"""Writes docs/performance.md: `python benchmarks/plan_time.py [RUN …] [--peers FILE] [--device cuda]`.

Measured on the shipped model of push from pixels: CEM plans against bare rollouts of the same model, candidates and
iterations, in turns, so that whatever else the machine does meets both alike. Each RUN is a folder of `forearm bench`
whose table is added, such as one with a deadline or one over budgets; FILE is what benchmarks/peers.py printed.

`python benchmarks/plan_time.py --imagined eager cudagraphs --device cuda` prints what plans with a large transformer
take instead, by each of these backends.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from forearm.evaluation.plots import success_against_cost
from forearm.evaluation.results import pool, read_results, table
from forearm.evaluation.timing import PlanTime, time_plans, time_table
from forearm.files import write_atomic
from forearm.machine import machine
from forearm.models.checkpoint import Checkpoint
from forearm.models.precision import Precision, cpu_has_int8
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner.compilation import Backend

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
SHARED = """\
Runs of whole episodes, below, shared the machine with other work, more at some times than at others: rows compare in
success, not in milliseconds. (Under the deadline one core was busy with something else, and the other planned.)"""
LIMIT = 60.0
"""Seconds for a row of the first table, if three rounds do."""
SHIPPED = ROOT / "models" / "pretrained" / "push-pixels"
LARGE = {"width": 768, "depth": 2}
"""A transformer of 14 million parameters; as many in more layers take longer, one after the other."""


def time_imagined(backends: Sequence[Backend], problems: Sequence[int], device: torch.device) -> list[PlanTime]:
    """Times plans of 300 x 30 x 5 with a large transformer of random weights, for so many problems at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        architecture = Architecture({"state": [1]}, {"state": "mlp"}, 5, 2, 192, 64, "transformer", LARGE)
        model = WorldModel(architecture).to(device).eval().requires_grad_(False)
    precision: Precision = "bf16" if device.type == "cuda" else "fp32"
    return [
        time_plans(model, 300, 30, 5, count, precision=precision, backend=backend, repetitions=10, limit=LIMIT / 3)
        for count in problems
        for backend in backends
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--imagined", nargs="+", choices=get_args(Backend), metavar="BACKEND")
    parser.add_argument("--problems", nargs="+", type=int, default=[1, 64], help="of --imagined: planned at once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    facts = [f"- {name}: {fact}" for name, fact in (machine() | {"device": str(device)}).items()]
    if arguments.imagined:
        print(time_table(time_imagined(arguments.imagined, arguments.problems, device)), "", *facts, sep="\n")
        return
    model = Checkpoint.load(SHIPPED).model.to(device).eval()
    sizes = [(300, 10, 5, 1), (128, 5, 5, 1), (128, 5, 5, 50)]
    ways: list[tuple[Precision, Backend]] = [("fp32", "eager"), ("bf16", "eager")]
    if device.type == "cpu" and cpu_has_int8():
        ways.append(("int8", "inductor"))
    times = [
        time_plans(model, *size, precision=kind, backend=backend, limit=LIMIT)
        for size in sizes
        for kind, backend in ways
    ]
    parts = [
        "# Performance",
        "This page is written by `python benchmarks/plan_time.py RUN … --peers FILE`, of the folders that the commands "
        "below made.",
        "\n".join(facts),
        "## A CEM plan against bare rollouts of its model",
        "The model of push from pixels that is shipped; plans of samples x iterations x model steps. "
        "Medians; the ratio is of pairs measured in turns, with its quartiles. Encoding is not in it, and rollouts are "
        "not compiled where the plan is.",
        time_table(times),
        SHARED,
    ]
    for run in arguments.runs:
        found = read_results(run / "results.json")
        first, rows = found.rows[0], pool(found.rows)
        parts += [f"## {first.env} from {first.obs}", f"    {found.more['command']}", table(rows)]
        if len({row.evaluations for row in rows if row.kind == "planner"}) > 1:
            curve = success_against_cost(rows, PAGE.parent / f"success-{run.name}.png")
            parts.append(f"![Success against milliseconds and against evaluations a plan]({curve.name})")
        parts += [
            "\n".join([f"- goals: sha256 {found.manifest}", *(f"- {k}: {v}" for k, v in found.more["facts"].items())]),
        ]
    if arguments.peers:
        what = "What `python benchmarks/peers.py` printed; it says what is the same for all, and how to install them."
        parts += ["## Beside other planners", what, arguments.peers.read_text(encoding="utf-8").strip()]
    write_atomic(PAGE, "\n\n".join(parts).encode() + b"\n")
    print(PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
