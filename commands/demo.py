"""`forearm demo`: a planner in closed loop on held-out goals, filmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bench import MEMORY, load_goals, own_imagination, write_film
from .common import (
    fits_world,
    in_memory,
    load_checkpoint,
    make_env,
    nothing_to_resume,
    run_folder,
    setup_device,
    write_config,
)

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from omegaconf import DictConfig


def run(config: DictConfig) -> None:
    device = setup_device(config)
    with run_folder(config, "demo", f"{config.env.name}-{config.obs}") as out, in_memory(config, *MEMORY):
        show(config, device, out)


def show(config: DictConfig, device: torch.device, out: Path) -> None:
    """Runs the planner on each goal; prints the row, and writes results.json and the film into `out`."""
    from ..episodes.progress import progress_bar
    from ..evaluation.closed_loop import run_episodes
    from ..evaluation.results import Row, table, write_results

    checkpoint = load_checkpoint(config, config.checkpoint, device)
    env = make_env(config)
    fits_world(config, config.checkpoint, checkpoint, env)
    controller = own_imagination(config, env, checkpoint, device)
    manifest = load_goals(config, env)
    write_config(config, out)
    steps = len(manifest) * manifest.budget
    with nothing_to_resume(config), progress_bar(f"demo {env.name}", steps, "steps") as advance:
        episodes = run_episodes(env, manifest, controller, config.seed, advance)
    row = Row.from_episodes(
        env=env.name,
        obs=config.obs,
        planner=config.planner.name,
        seed=config.seed,
        success=episodes.success,
        reached=episodes.reached,
        plan_ms=[1e3 * seconds / len(manifest) for seconds in episodes.act_seconds],
        evaluations=episodes.mean_evaluations,
        final_distance_cm=100 * episodes.distance[:, -1],
        note=f"plan times amortised over {len(manifest)} arms planned together",
    )
    write_results(out / "results.json", [row], manifest.sha256)
    print(table([row]))
    name = f"{env.name.replace('/', '-')}.mp4"
    if video := write_film(out / name, env, episodes, len(manifest), config.planner.name):
        print(f"video: {video}")
