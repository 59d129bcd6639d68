"""`forearm record`: episodes of an arm into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from .common import make_env

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(config: DictConfig) -> None:
    from ..episodes import RecordRequest, record

    env = make_env(config)  # whatever keeps it from being made is said before anything is written
    env.close()
    if config.policy not in env.policies:
        raise UserError(f"policy={config.policy} is unknown; choose one of: {', '.join(env.policies)}")
    out = Path(config.out or f"data/{config.env.name}-{config.obs}-{config.policy}")
    request = RecordRequest(
        env=config.env.name,
        policy=config.policy,
        seed=config.seed,
        episodes=config.episodes,
        length=config.length,
        config=env.config,
    )
    manifest = record(request, out, workers=config.workers, progress=True)
    print(f"{manifest.episodes} episodes, {manifest.frames} frames in {out}")
    print(f"next: forearm train data={out} obs={config.obs}")
