"""`forearm bench planners`: planners on problems whose optimum is known, in under a minute."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, get_args

from ..cli import as_dict
from ..errors import UserError
from ..files import write_json
from .common import at_least, check_transformer, command_line, in_memory, run_folder, setup_device, write_config

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from omegaconf import DictConfig

    from ..evaluation.timing import PlanTime


def run(config: DictConfig) -> None:
    from omegaconf import OmegaConf

    from ..planner import PLANNERS
    from ..planner.compilation import Backend
    from ..planner.problems import PROBLEMS

    at_least(config, seeds=1)
    at_least(config.imagined, "imagined", samples=2, iterations=1, horizon=1, depth=1, problems=1)
    check_transformer("imagined.width", config.imagined.width)
    asked = {"planners": PLANNERS, "problems": PROBLEMS, "imagined.backends": get_args(Backend)}
    for key, choices in asked.items():
        for name in OmegaConf.select(config, key):
            if name not in choices:
                raise UserError(f"{key}: {name} is unknown; choose from: {', '.join(choices)}")
    device = setup_device(config)
    memory = ("seeds", "imagined.samples", "imagined.problems")
    with run_folder(config, "planners", "gaps") as out, in_memory(config, *memory):
        measure(config, device, out)


def measure(config: DictConfig, device: torch.device, out: Path) -> None:
    """Plans every problem; prints tables, and writes results.json and the plot into `out`."""
    from ..episodes.progress import progress_bar
    from ..evaluation.planners import gap_table, measure_gap
    from ..evaluation.plots import gap_curves
    from ..evaluation.timing import time_table
    from .doctor import machine

    write_config(config, out)
    pairs = [(problem, planner) for problem in config.problems for planner in config.planners]
    gaps = []
    with progress_bar("bench planners", len(pairs), "rows") as advance:
        for problem, planner in pairs:
            try:
                gaps.append(measure_gap(problem, planner, as_dict(config.settings[planner]), config.seeds, device))
            except ValueError as error:
                raise UserError(f"settings.{planner}: {error}") from None
            advance(1)
    times = time_imagined(config.imagined, device)
    write_json(
        out / "results.json",
        {
            "schema": 1,
            "command": command_line("planners", config, "bench planners"),
            "facts": {**machine(), "device": device_name(device)},
            "rows": [asdict(gap) for gap in gaps],
            "times": [asdict(time) for time in times],
        },
    )
    gap_curves(gaps, out / "gaps.png")
    print(gap_table(gaps))
    if times:
        print(f"\nCEM with a transformer as world model, on {device_name(device)}:\n{time_table(times)}")
    print(f"results: {out / 'results.json'}, {out / 'gaps.png'}")


def time_imagined(config: DictConfig, device: torch.device) -> list[PlanTime]:
    """Plan times with a large world model, as `imagined` says, by each of its backends."""
    import torch

    from ..episodes.progress import progress_bar
    from ..evaluation.timing import time_plans
    from ..models.world_model import Architecture, WorldModel

    if config.device != device.type:
        return []
    settings = {"width": config.width, "depth": config.depth}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        architecture = Architecture({"state": [1]}, {"state": "mlp"}, 5, 2, 192, 64, "transformer", settings)
        model = WorldModel(architecture).to(device).eval().requires_grad_(False)
    size = (config.samples, config.iterations, config.horizon)
    measure = partial(
        time_plans,
        model,
        *size,
        precision="bf16" if device.type == "cuda" else "fp32",
        repetitions=10,
        limit=config.limit,
    )
    runs = [(count, backend) for count in config.problems for backend in config.backends]
    times = []
    with progress_bar("bench plan times", len(runs), "runs") as advance:
        for count, backend in runs:
            times.append(measure(count, backend=backend))
            advance(1)
    return times


def device_name(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
