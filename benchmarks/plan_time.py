"""Writes docs/performance.md: `python benchmarks/plan_time.py [RUN …] [--peers FILE]`.

Measured on the shipped model of push from pixels: CEM plans against bare rollouts of the same model, candidates and
iterations, in turns, so that whatever else the machine does meets both alike. Each RUN is a folder of `forearm bench`
whose table is added, such as one with a deadline or one over budgets; FILE is what benchmarks/peers.py printed.
`--device cuda` measures on a GPU.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from forearm.commands.doctor import machine
from forearm.evaluation.plots import success_against_cost
from forearm.evaluation.results import pool, read_results, table
from forearm.evaluation.timing import time_plans, time_table
from forearm.files import write_atomic
from forearm.models.checkpoint import Checkpoint
from forearm.models.precision import Precision, cpu_has_int8
from forearm.planner.compilation import Backend

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "performance.md"
SHARED = """\
Runs of whole episodes, below, shared the machine with other work, more at some times than at others: rows compare in
success, not in milliseconds. (Under the deadline one core was busy with something else, and the other planned.)"""
LIMIT = 60.0
"""Seconds for a row of the first table, if three rounds do."""
SHIPPED = ROOT / "models" / "pretrained" / "push-pixels"


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
