"""What training asks of the worlds that were recorded, by what their recordings tell."""

from __future__ import annotations

from ..episodes import Recordings
from ..errors import UserError


def tracked_columns(data: Recordings) -> dict[str, slice]:
    """The columns of `state` with the tracked points, by the environment that was recorded: as its recordings tell, or,
    of those that are older than that, as the environment does today.

    Raises:
        UserError: where they are not equally many, or are not told and the environment is another than was recorded.
    """
    tracked = {
        env: slice(*facts.tracked) if facts.tracked else _tracked_today(env, data) for env, facts in data.worlds.items()
    }
    if len({columns.stop - columns.start for columns in tracked.values()}) > 1:
        raise UserError(f"data: not as many points are tracked in {' as in '.join(data.envs)}")
    return tracked


def tolerance(data: Recordings) -> float | None:
    """The smallest at which a goal counts as reached, metres, of the environments that were recorded; None where a
    recording does not say."""
    told = [facts.tolerance for facts in data.worlds.values()]
    known = [metres for metres in told if metres is not None]
    return min(known) if len(known) == len(told) else None


def _tracked_today(env: str, data: Recordings) -> slice:
    from ..envs import make_world, observation_shapes  # here, for training needs no simulator otherwise

    part = next(part for part in data.parts if part.manifest.request.env == env)
    old = f"data={part.folder}: does not tell which columns of `state` are tracked, as recordings of Forearm 0.1 do not"
    try:
        world = make_world(env, **{**part.manifest.request.config, "pixels": False})  # pixels would need OpenGL
    except UserError as error:
        raise UserError(f"{old}: {error}") from None
    held, found = part.manifest.columns["state"].shape[1:], observation_shapes(world)["state"]
    world.close()
    if held != found:
        raise UserError(f"{old}, and its state {held} is not that of env={env}, {found}")
    return world.tracked
