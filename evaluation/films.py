"""Films of episodes that were run: rendered afterwards, from the simulator states that the run kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..envs import World
from .closed_loop import Episodes
from .video import EpisodeFilm, FilmFrame, write_mp4


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


def write_film(path: Path, env: World, episodes: Episodes, count: int, planner: str) -> Path | None:
    """Films the first episodes; None, with a word about why, where that fails."""
    shown = range(min(count, len(episodes.manifest)))
    return drawn("film", lambda: write_mp4(path, film(env, episodes, shown, planner), 1 / env.dt))


def drawn(what: str, draw: Callable[[], Path]) -> Path | None:
    """What `draw` makes of what was measured. Whatever fails there is told of, and costs nothing but the picture."""
    try:
        return draw()
    except Exception as error:
        print(f"no {what}: {' '.join(str(error).split()) or type(error).__name__}")
        return None
