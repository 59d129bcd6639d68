"""Recording by settings. Without torch, unless a planner on a learned model acts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..envs.settings import PLANNER, RecordSettings
from ..episodes import Recordings, RecordRequest, record
from ..errors import UserError
from ..settings import SettingError, shown

PLANNERS_OWN = ("checkpoint", "noise", "execute_steps", "precision", "planner", "energy")
"""What can be set of it alone."""


def settings_class(given: Mapping[str, Any]) -> type[RecordSettings]:
    """The class of what is given by dotted key: a planner takes more than other policies do.

    Raises:
        SettingError: for a planner's setting where none acts.
    """
    policy = given.get("policy", RecordSettings.policy)
    if policy == PLANNER:
        from .policies import PlannerRecordSettings  # with torch, which other policies do without

        return PlannerRecordSettings
    for name, value in given.items():
        if name.split(".")[0] in PLANNERS_OWN:
            raise SettingError(f"{name}={shown(value)}: policy={policy} needs none; it is policy={PLANNER}'s")
    return RecordSettings


def record_episodes(settings: RecordSettings, progress: bool = True) -> Recordings:
    """Records what is missing in `out`, and opens it.

    Raises:
        UserError: naming the key; see also `episodes.record`.
    """
    env = settings.env.make(settings.obs)  # whatever keeps it from being made is said before anything is written
    acts: dict[str, Any] = {}
    policy_config: dict[str, Any] = {}
    if settings.policy == PLANNER:
        from .policies import PlannerPolicies, PlannerRecordSettings

        assert isinstance(settings, PlannerRecordSettings)
        policies = PlannerPolicies.checked(settings, env)
        acts, policy_config = {"make_policy": policies}, policies.about
    elif settings.policy not in env.policies:
        raise UserError(f"policy={settings.policy} is unknown; choose one of: {', '.join([*env.policies, PLANNER])}")
    env.close()
    out = Path(settings.out or f"data/{settings.env.name}-{settings.obs}-{settings.policy}")
    request = RecordRequest(
        env=settings.env.name,
        policy=settings.policy,
        seed=settings.seed,
        episodes=settings.episodes,
        length=settings.length,
        config=env.config,
        policy_config=policy_config,
    )
    record(request, out, workers=settings.workers, progress=progress, **acts)
    return Recordings.open([out])
