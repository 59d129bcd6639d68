"""Films of episodes that were run: rendered afterwards, from the simulator states that the run kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ..envs import World
from .closed_loop import Episodes
from .video import EpisodeFilm, FilmFrame


def film(
    env: World,
    episodes: Episodes,
    problems: Sequence[int],
    planner: str,
    note: str = "",
) -> Iterator[np.ndarray]:
    """Frames (H, W, 3) uint8 of some problems' episodes, one after the other; the last is held for a second."""
    budget = episodes.manifest.budget
    milliseconds = 1e3 * np.array(episodes.act_seconds) / len(episodes.manifest)
    for problem in problems:
        env.load_state(episodes.manifest.goal[problem])
        pixels = bool(env.config["pixels"])
        goal = env.observe()["pixels"] if pixels else env.render_scene(240)
        energies = [float(episodes.energies[plan][problem]) for plan in episodes.plans] if episodes.energies else []
        page = EpisodeFilm(env.name, planner, budget, energies=energies, sees_pixels=pixels, note=note)
        for step in range(budget):
            env.load_state(episodes.states[problem, step + 1])
            distance = float(episodes.distance[problem, step])
            frames = 1 if step < budget - 1 else 1 + max(1, round(1 / env.dt))
            yield from [
                page.compose(
                    FilmFrame(
                        scene=env.render_scene(480),
                        goal=goal,
                        seen=env.observe().get("pixels"),
                        step=step + 1,
                        success=distance < episodes.manifest.tolerance,
                        plan_ms=float(milliseconds[episodes.plans[step]]),
                        distance_cm=100 * distance,
                    )
                )
            ] * frames
