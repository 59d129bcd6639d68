"""`forearm train`: a latent world model from recorded episodes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cli import as_dict
from ..errors import UserError
from .common import at_least, check_obs, check_transformer, run_folder, setup_device, write_config

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..episodes import Recordings
    from ..models.world_model import Architecture
    from ..training.loop import Settings
    from ..training.objectives import Objective
    from ..training.prior import PriorSettings

SETTINGS = (
    "steps", "batch", "horizon", "learning_rate", "precision", "seed", "log_every", "validate_every", "save_every",
)  # fmt: skip


def run(config: DictConfig) -> None:
    from ..episodes import Recordings
    from ..models.checkpoint import ENVS

    check_obs(config.obs)
    if not config.data:
        raise UserError("data: give the folder that `forearm record` wrote: data=PATH, or several as data=[A,B]")
    device = setup_device(config)
    data = Recordings.open([Path(folder) for folder in config.data])
    if config.resume:
        out = Path(config.out) if config.out else _latest(Path("runs/train"))
    else:
        out = run_folder(config, "train", f"{ENVS.join(data.envs)}-{config.obs}")
    checkpoint = train(config, data, out, device, config.resume)
    print(f"checkpoint: {checkpoint}")
    print(f"next: forearm bench env={data.envs[0]} obs={config.obs} checkpoint={checkpoint}")


def train(config: DictConfig, data: Recordings, out: Path, device: torch.device, resume: bool) -> Path:
    """Trains in `out` with a progress bar, log, TensorBoard and plot; returns the checkpoint's folder."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from ..episodes.progress import progress_bar
    from ..evaluation.plots import loss_curves
    from ..models.world_model import WorldModel
    from ..training.loop import CHECKPOINT, Trainer, read_log

    settings = training_settings(config)
    # Initial weights are the one thing torch draws from its global generator; it is put back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = WorldModel(architecture(config, data))
    prior_settings(config)
    identity = {"obs": config.obs} | {f"model.{k}": v for k, v in as_dict(config.model).items()}
    identity |= {f"objective.{k}": v for k, v in as_dict(config.objective).items()}
    tracked = tracked_columns(data)
    if config.prior.steps and model.readout is None:
        raise UserError(
            f"prior.steps={config.prior.steps}: a prior reads where things are, and not the same is tracked in "
            f"{' and '.join(data.envs)}; leave it 0"
        )
    trainer = Trainer(model, objective(config), data, config.obs, tracked, settings, out, device, identity, resume)
    write_config(config, out)
    if resume:
        print(f"resumed {out} at step {trainer.step}")
    frames = settings.batch * (settings.horizon + 1)
    with (
        ctrl_c() as pressed,
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
            if pressed():
                trainer.save()
                raise KeyboardInterrupt(f"forearm train … out={out} resume=true (saved at step {trainer.step})")
    loss_curves(read_log(out), out / "loss.png")
    if config.prior.steps:
        learn_prior(config, data, out / CHECKPOINT, device)
    return out / CHECKPOINT


def learn_prior(config: DictConfig, data: Recordings, folder: Path, device: torch.device) -> None:
    """Adds an action prior to a trained checkpoint that has none. It takes minutes, and starts over if stopped."""
    from ..episodes.progress import progress_bar
    from ..models.checkpoint import Checkpoint
    from ..training.prior import train_prior

    checkpoint = Checkpoint.load(folder, device)
    if checkpoint.prior is not None:
        return
    settings = prior_settings(config)
    try:
        with progress_bar("train prior", settings.steps, "steps") as advance:
            prior = train_prior(checkpoint.model, data, settings, config.seed, config.precision, advance)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"forearm train … out={folder.parent} resume=true") from None
    replace(checkpoint, prior=prior).save(folder)


@contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Holds the first Ctrl-C back, so that a step is never left half-done, and yields whether it was pressed; the
    second one interrupts at once."""
    pressed = False

    def hold(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def training_settings(config: DictConfig) -> Settings:
    """How to train, of a config. UserError for a value that cannot be."""
    from ..training.loop import Settings

    try:
        return Settings(**{key: config[key] for key in SETTINGS})
    except ValueError as error:
        raise UserError(str(error)) from None


def prior_settings(config: DictConfig) -> PriorSettings:
    """How to train an action prior, of a config. UserError for a value that cannot be."""
    from ..training.prior import PriorSettings

    at_least(config.prior, "prior", steps=0)
    if config.prior.segment % config.model.chunk:
        raise UserError(f"prior.segment={config.prior.segment}: must be a multiple of model.chunk={config.model.chunk}")
    settings = as_dict(config.prior)
    try:
        return PriorSettings(**settings | {"steps": max(1, settings["steps"])})
    except ValueError as error:
        raise UserError(f"prior.{error}") from None


def objective(config: DictConfig) -> Objective:
    from ..training.objectives import make_objective

    settings = as_dict(config.objective)
    return make_objective(settings.pop("name"), **settings)


def check_model(config: DictConfig, length: int) -> None:
    """Makes sure that the config's model can be built, and that its windows fit into episodes of `length` steps.

    Raises:
        UserError: naming the key and what it may be.
    """
    from ..models.predictor import PREDICTORS

    m = config.model
    at_least(m, "model", chunk=1, latent=1, features=1, predictor_width=1, predictor_depth=0, encoder_width=0)
    if m.predictor not in PREDICTORS:
        raise UserError(f"model.predictor={m.predictor} is unknown; choose one of: {', '.join(PREDICTORS)}")
    if m.predictor == "transformer":
        check_transformer("model.predictor_width", m.predictor_width)
    if m.chunk * config.horizon > length:
        raise UserError(
            f"model.chunk={m.chunk} x horizon={config.horizon}: must be at most {length}, the steps of an episode"
        )


def architecture(config: DictConfig, data: Recordings) -> Architecture:
    """What the config's model group and the data's shapes make together."""
    from ..models.world_model import Architecture

    parts = config.obs.split("+")
    for recording in data.parts:
        for part in parts:
            if part not in (held := recording.manifest.columns):
                there = ", ".join(sorted(held))
                raise UserError(f"obs={config.obs}: {recording.folder} was recorded without {part}; it has {there}")
    columns = data.columns
    for part in parts:
        if part not in columns:
            raise UserError(f"obs={config.obs}: {part} is not of one shape in {' and '.join(data.envs)}")
    check_model(config, data.length)
    m = config.model
    tracked = list(tracked_columns(data).values())
    # What is read off embeddings must be the same thing, whatever the environment.
    alike = len(data.envs) == 1 or ("state" in columns and all(one == tracked[0] for one in tracked))
    width: dict[str, Any] = {"width": m.encoder_width} if m.encoder_width else {}
    return Architecture(
        observations={part: list(columns[part].shape[1:]) for part in parts},
        encoders={part: "cnn" if part == "pixels" else "mlp" for part in parts},
        action_size=columns["action"].shape[1],
        chunk=m.chunk,
        latent=m.latent,
        features=m.features,
        predictor=m.predictor,
        predictor_settings={"width": m.predictor_width, "depth": m.predictor_depth},
        encoder_settings={parts[0]: width},
        readout=(tracked[0].stop - tracked[0].start) if alike else 0,
    )


def tracked_columns(data: Recordings) -> dict[str, slice]:
    """The columns of `state` with the tracked points, by the environment that was recorded.

    Raises:
        UserError: where they are not equally many.
    """
    from ..envs import make_world

    tracked = {env: make_world(env, pixels=False).tracked for env in data.envs}  # pixels would need OpenGL
    if len({columns.stop - columns.start for columns in tracked.values()}) > 1:
        raise UserError(f"data: not as many points are tracked in {' as in '.join(data.envs)}")
    return tracked


def _latest(runs: Path) -> Path:
    from ..training.loop import SNAPSHOT

    found = sorted(path.parent for path in runs.glob(f"*/{SNAPSHOT}"))
    if not found:
        raise UserError(f"resume=true: there is no training under {runs}; give its folder as out=…")
    return found[-1]
