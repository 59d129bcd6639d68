"""`forearm quickstart`: record, train, bench, film, in one folder that can be gone on with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import bench
from .common import check_obs, make_env, setup_device, write_config
from .train import train

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(config: DictConfig) -> None:
    from ..episodes import Dataset, RecordRequest, record
    from ..evaluation.goals import make_goals
    from ..models.checkpoint import Checkpoint
    from ..training.loop import SNAPSHOT

    begun = time.perf_counter()
    name = f"{config.env.name}-{check_obs(config.obs)}"
    out = Path(config.out or Path("runs/quickstart") / f"{time.strftime('%Y%m%d-%H%M%S')}-{name}")
    device = setup_device(config)
    env = make_env(config)
    out.mkdir(parents=True, exist_ok=True)
    write_config(config, out)
    try:
        print(f"1/3 record: {config.record_episodes} episodes of play")
        request = RecordRequest(
            env=env.name, seed=config.seed, episodes=config.record_episodes, config=dict(env.config)
        )
        record(request, out / "data", workers=config.workers, progress=True)
        print(f"2/3 train: {config.steps} steps on {device}")
        resume = (out / "train" / SNAPSHOT).exists()
        (out / "train").mkdir(exist_ok=True)
        folder = train(config, Dataset.open(out / "data"), out / "train", device, resume)
        print(f"3/3 bench: {config.episodes} held-out goals")
        checkpoint = Checkpoint.load(folder, device)
        entries = bench.make_entries(config, env, checkpoint, device)
        manifest = make_goals(env, config.episodes, config.seed)
        (out / "bench").mkdir(exist_ok=True)
        command = f"forearm quickstart env={env.name} obs={config.obs} seed={config.seed}"
        bench.measure(config, env, manifest, entries, out / "bench", command)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"forearm quickstart … out={out}") from None
    print(f"done in {(time.perf_counter() - begun) / 60:.1f} minutes: {out}")
