"""`forearm demo`: a planner in closed loop on held-out goals, filmed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bench import load_goals, own_imagination, write_film
from .common import load_checkpoint, make_env, nothing_to_resume, run_folder, setup_device, write_config

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(config: DictConfig) -> None:
    from ..episodes.progress import progress_bar
    from ..evaluation.closed_loop import run_episodes
    from ..evaluation.results import Row, table, write_results

    device = setup_device(config)
    env = make_env(config)
    checkpoint = load_checkpoint(config, config.checkpoint, device, env)
    controller = own_imagination(config, env, checkpoint, device)
    manifest = load_goals(config, env)
    out = run_folder(config, "demo", f"{env.name}-{config.obs}")
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
