"""`forearm train`: a latent world model from recorded episodes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import as_dict
from ..errors import UserError
from .common import check_obs, run_folder, setup_device, write_config

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..episodes import Dataset
    from ..models.world_model import Architecture

SETTINGS = (
    "steps", "batch", "horizon", "learning_rate", "precision", "seed", "log_every", "validate_every", "save_every",
)  # fmt: skip


def run(config: DictConfig) -> None:
    from ..episodes import Dataset

    check_obs(config.obs)
    if not config.data:
        raise UserError("data: give the folder that `forearm record` wrote: data=PATH")
    device = setup_device(config)
    data = Dataset.open(Path(config.data))
    if config.resume:
        out = Path(config.out) if config.out else _latest(Path("runs/train"))
    else:
        out = run_folder(config, "train", f"{data.manifest.request.env}-{config.obs}")
    checkpoint = train(config, data, out, device, config.resume)
    print(f"checkpoint: {checkpoint}")
    print(f"next: forearm bench env={data.manifest.request.env} obs={config.obs} checkpoint={checkpoint}")


def train(config: DictConfig, data: Dataset, out: Path, device: torch.device, resume: bool) -> Path:
    """Trains in `out` with a progress bar, log, TensorBoard and plot; returns the checkpoint's folder."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from ..envs import TASKS
    from ..episodes.progress import progress_bar
    from ..evaluation.plots import loss_curves
    from ..models.world_model import WorldModel
    from ..training.loop import CHECKPOINT, Settings, Trainer, read_log
    from ..training.objectives import make_objective

    try:
        settings = Settings(**{key: config[key] for key in SETTINGS if key in config})
    except ValueError as error:
        raise UserError(str(error)) from None
    # Initial weights are the one thing torch draws from its global generator; it is put back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = WorldModel(architecture(config, data))
    objective_settings = as_dict(config.objective)
    objective = make_objective(objective_settings.pop("name"), model, **objective_settings)
    identity = {"obs": config.obs} | {f"model.{k}": v for k, v in as_dict(config.model).items()}
    identity |= {f"objective.{k}": v for k, v in as_dict(config.objective).items()}
    tracked = TASKS[data.manifest.request.env].tracked
    trainer = Trainer(model, objective, data, config.obs, tracked, settings, out, device, identity, resume)
    if resume:
        write_config(config, out)
        print(f"resumed {out} at step {trainer.step}")
    frames = settings.batch * (settings.horizon + 1)
    try:
        with (
            closing(SummaryWriter(str(out), purge_step=trainer.step)) as board,
            progress_bar("train", settings.steps * frames, "frames", trainer.step * frames) as advance,
        ):

            def record(line: dict[str, float]) -> None:
                for key, value in line.items():
                    if key != "step":
                        board.add_scalar(key, value, int(line["step"]))

            for validation in trainer.run(record):
                advance(frames)
                if validation:
                    print(f"step {trainer.step}: {validation.words}")
    except KeyboardInterrupt:
        trainer.save()
        raise KeyboardInterrupt(f"forearm train … out={out} resume=true (saved at step {trainer.step})") from None
    loss_curves(read_log(out), out / "loss.png")
    return out / CHECKPOINT


def architecture(config: DictConfig, data: Dataset) -> Architecture:
    """What the config's model group and the data's shapes make together."""
    from ..models.world_model import Architecture

    columns = data.manifest.columns
    if config.obs not in columns:
        raise UserError(f"obs={config.obs}: {data.folder} was recorded without it; it has {', '.join(sorted(columns))}")
    m = config.model
    span, length = m.chunk * config.horizon, data.manifest.length
    if m.chunk < 1 or span > length:
        raise UserError(f"model.chunk={m.chunk} x horizon={config.horizon}: must lie in 1 … {length}, an episode")
    kind = "cnn" if config.obs == "pixels" else "mlp"
    width: dict[str, Any] = {"width": m.encoder_width} if m.encoder_width else {}
    return Architecture(
        observations={config.obs: list(columns[config.obs].shape[1:])},
        encoders={config.obs: kind},
        action_size=columns["action"].shape[1],
        chunk=m.chunk,
        latent=m.latent,
        features=m.features,
        predictor=m.predictor,
        predictor_settings={"width": m.predictor_width, "depth": m.predictor_depth},
        encoder_settings={config.obs: width},
    )


def _latest(runs: Path) -> Path:
    from ..training.loop import SNAPSHOT

    found = sorted(path.parent for path in runs.glob(f"*/{SNAPSHOT}"))
    if not found:
        raise UserError(f"resume=true: there is no training under {runs}; give its folder as out=…")
    return found[-1]
