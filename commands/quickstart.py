"""`forearm quickstart`: record, train, bench, film, in one folder that can be gone on with."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..cli import as_dict
from ..errors import UserError
from ..folders import check_free, new_folder, owned
from . import bench
from .common import (
    at_least,
    check_members,
    check_obs,
    command_line,
    flat,
    in_memory,
    make_env,
    setup_device,
    write_config,
)
from .train import check_model, objective, stages, train, training_settings

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..envs import World

MAY_CHANGE = ("out", "workers", "device", "threads")
"""What a run may be gone on with in another way."""


def run(config: DictConfig) -> None:
    from ..episodes import RecordRequest

    device = setup_device(config)
    env = make_env(config)
    _check(config, env, RecordRequest.length)
    stamped = f"{time.strftime('%Y%m%d-%H%M%S')}-{env.name}-{check_obs(config.obs)}".replace("/", "-")
    if config.out:
        _check_folder(config, Path(config.out))  # looks before it touches
    where = owned(Path(config.out)) if config.out else new_folder(Path("runs/quickstart") / stamped)
    with where as out, in_memory(config, "batch", *bench.MEMORY):
        _check_folder(config, out)
        _go(config, env, device, out)


def _go(config: DictConfig, env: World, device: torch.device, out: Path) -> None:
    """Records, trains and benches in `out`, or goes on with what is there."""
    from ..episodes import Recordings, RecordRequest, record
    from ..evaluation.goals import make_goals
    from ..models.checkpoint import Checkpoint
    from ..training.loop import SNAPSHOT

    clock = [time.perf_counter()]
    fresh = not (out / "data").exists()
    write_config(config, out)
    try:
        print(f"1/3 record: {config.record_episodes} episodes of play")
        request = RecordRequest(env.name, seed=config.seed, episodes=config.record_episodes, config=env.config)
        record(request, out / "data", workers=config.workers, progress=True)
        clock.append(time.perf_counter())
        print(f"2/3 train: {config.steps} steps on {device}")
        resume = (out / "train" / SNAPSHOT).exists()
        with owned(out / "train"):  # which `forearm train resume=true` could go on with
            folder = train(config, Recordings.open([out / "data"]), out / "train", device, resume)
        clock.append(time.perf_counter())
        print(f"3/3 bench: {config.episodes} held-out goals")
        checkpoint = Checkpoint.load(folder, device)
        entries = bench.make_entries(config, env, [checkpoint], device)
        manifest = make_goals(env, config.episodes, config.seed)
        spent = {stage: clock[i + 1] - clock[i] for i, stage in enumerate(("recording", "training"))} if fresh else {}
        command = command_line("quickstart", config)
        bench.measure(config, env, manifest, [checkpoint], entries, out / "bench", command, spent)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"to go on, {command_line('quickstart', config)} out={out}") from None
    print(f"done in {(time.perf_counter() - clock[0]) / 60:.1f} minutes: {out}")


def _check(config: DictConfig, env: World, length: int) -> None:
    """What the steps would find wrong when it is their turn, found now."""
    from ..envs import action_size

    at_least(config, record_episodes=2, workers=1, episodes=1, seed=0)
    training_settings(config)
    objective(config)
    check_model(config, length)
    stages(config, length)
    if "temporal" in config.energy.metric and not config.temporal.steps:
        raise UserError(f"energy.metric={config.energy.metric}: needs temporal.steps, such as 2000")
    check_members(config.model.members, as_dict(config.energy))
    if config.energy.weights.prior and not config.prior.steps:
        raise UserError(f"energy.weights.prior={config.energy.weights.prior}: needs prior.steps, such as 8000")
    if "prior" in config.planners:
        bench.check_prior_alone(config, config.prior.segment)
    size = action_size(env)
    bench.make_planners(config, [-1.0] * size, [1.0] * size, config.model.chunk)


def _check_folder(config: DictConfig, out: Path) -> None:
    """Makes sure that `out` is free, or an unfinished quickstart with the same settings.

    Raises:
        UserError: naming what is in the way, or the key and both values.
    """
    from omegaconf import OmegaConf

    if not (out / "config.yaml").is_file():
        check_free(out)
    if (out / "bench" / "report.html").exists():
        raise UserError(f"out={out}: is finished and nothing is overwritten; choose another folder")
    if (out / "config.yaml").exists():
        before, now = flat(as_dict(OmegaConf.load(out / "config.yaml"))), flat(as_dict(config))
        for key in [*now, *before]:
            if key not in MAY_CHANGE and now.get(key) != before.get(key):
                raise UserError(f"{key}={now.get(key)}: {out} was begun with {key}={before.get(key)}; keep it to go on")
