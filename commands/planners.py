"""`forearm bench planners`: planners on problems whose optimum is known, in under a minute."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from ..cli import as_dict
from ..errors import UserError
from ..files import write_json
from .common import at_least, command_line, run_folder, setup_device, write_config

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(config: DictConfig) -> None:
    from ..episodes.progress import progress_bar
    from ..evaluation.planners import gap_table, measure_gap
    from ..planner import PLANNERS
    from ..planner.problems import PROBLEMS
    from .doctor import machine

    at_least(config, seeds=1)
    for key, choices in {"planners": PLANNERS, "problems": PROBLEMS}.items():
        for name in config[key]:
            if name not in choices:
                raise UserError(f"{key}: {name} is unknown; choose from: {', '.join(choices)}")
    device = setup_device(config)
    out = run_folder(config, "planners", "gaps")
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
    write_json(
        out / "results.json",
        {
            "schema": 1,
            "command": command_line("planners", config, "bench planners"),
            "facts": machine(),
            "rows": [asdict(gap) for gap in gaps],
        },
    )
    print(gap_table(gaps))
    print(f"results: {out / 'results.json'}")
