"""Writes docs/performance.md: `python benchmarks/plan_time.py [RUN …] [--peers FILE]`.

Measured on the shipped model of push from pixels: CEM plans against bare rollouts of the same model, candidates and
iterations, in turns, so that whatever else the machine does meets both alike. Each RUN is a folder of `forearm bench`
whose table is added, such as one with a deadline or one over budgets; FILE is what benchmarks/peers.py printed.
`--device cuda` measures on a GPU. `--imagined` writes no page: it prints the times of plans with a large transformer of
random weights, for one problem and for 64 at once, by each of the backends of `--backends`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from forearm.evaluation.plots import success_against_cost
from forearm.evaluation.results import pool, read_results, table
from forearm.evaluation.timing import time_plans, time_table
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
IMAGINED = (300, 30, 5)
"""Samples, iterations and horizon of plans with a large model."""
SHIPPED = ROOT / "models" / "pretrained" / "push-pixels"


def large_model() -> WorldModel:
    """14 million parameters in two layers; as many in more layers take longer, one after the other."""
    settings = {"width": 768, "depth": 2}
    torch.manual_seed(0)
    architecture = Architecture({"state": [1]}, {"state": "mlp"}, 5, 2, 192, 64, "transformer", settings)
    return WorldModel(architecture).eval().requires_grad_(False)


def time_imagined(device: torch.device, backends: Sequence[Backend]) -> str:
    """The table of plans with a large model, ten rounds a row, or as many as begin in 20 seconds."""
    model = large_model().to(device)
    precision: Precision = "bf16" if device.type == "cuda" else "fp32"
    times = [
        time_plans(model, *IMAGINED, problems, precision=precision, backend=backend, repetitions=10, limit=20.0)
        for problems in (1, 64)
        for backend in backends
    ]
    return time_table(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--imagined", action="store_true")
    parser.add_argument("--backends", nargs="+", choices=get_args(Backend), default=["eager", "cudagraphs"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if arguments.imagined:
        print(time_imagined(device, arguments.backends))
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
    facts = [f"- {name}: {fact}" for name, fact in machine().items()]
    parts = [
        "# Performance",
        "This page is written by `python benchmarks/plan_time.py RUN … --peers FILE`, of the folders that the commands "
        "below made.",
        "\n".join([*facts, f"- device: {device}"]),
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
