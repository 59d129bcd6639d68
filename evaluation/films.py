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
        goal = env.observe()["pixels"] if env.config["pixels"] else env.render_scene(240)
        page = EpisodeFilm(env.name, planner, budget, note=note)
        for step in range(budget):
            env.load_state(episodes.states[problem, step + 1])
            plan = episodes.plans[step]
            distance = float(episodes.distance[problem, step])
            frames = 1 if step < budget - 1 else 1 + env.metadata["render_fps"]
            yield from [
                page.compose(
                    FilmFrame(
                        scene=env.render_scene(480),
                        goal=goal,
                        seen=env.observe().get("pixels"),
                        step=step + 1,
                        success=distance < episodes.manifest.tolerance,
                        energy=float(episodes.energies[plan][problem]) if episodes.energies else None,
                        plan_ms=float(milliseconds[plan]),
                        distance_cm=100 * distance,
                    )
                )
            ] * frames
