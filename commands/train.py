"""`forearm train`: a latent world model from recorded episodes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..cli import as_dict
from ..errors import UserError
from ..folders import owned
from .common import (
    at_least,
    check_obs,
    check_transformer,
    checkpoint_folder,
    flat,
    in_memory,
    meet,
    run_folder,
    setup_device,
    told_next,
    write_config,
)

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from ..episodes import Recordings
    from ..models.checkpoint import Checkpoint
    from ..models.world_model import Architecture, WorldModel
    from ..training.heads import Recorded
    from ..training.loop import TrainingSettings
    from ..training.objectives import Objective

SETTINGS = (
    "steps", "batch", "horizon", "learning_rate", "relax", "grounding", "grounding_arm", "ridge", "precision", "seed",
    "log_every", "validate_every", "save_every",
)  # fmt: skip
S = TypeVar("S")


def run(config: DictConfig) -> None:
    from ..episodes import Recordings
    from ..models.checkpoint import ENVS

    check_obs(config.obs)
    if not config.data:
        raise UserError("data: give the folder that `forearm record` wrote: data=PATH, or several as data=[A,B]")
    device = setup_device(config)
    data = Recordings.open([Path(folder) for folder in config.data])
    name = f"{ENVS.join(data.envs)}-{config.obs}"
    go_on = "make room, and resume=true goes on with it"
    where = owned(Path(config.out), go_on) if config.resume else run_folder(config, "train", name, go_on)
    with where as out, in_memory(config, "batch", "horizon", "model.features", "model.predictor_width"):
        checkpoint = train(config, data, out, device, config.resume)
    print(f"checkpoint: {checkpoint}")
    env = data.envs[0]
    print(told_next(env, "bench", f"env={env}", f"obs={config.obs}", f"checkpoint={checkpoint}"))


def train(config: DictConfig, data: Recordings, out: Path, device: torch.device, resume: bool) -> Path:
    """Trains in `out` with a progress bar, log, TensorBoard and plot; returns the checkpoint's folder. Where `frozen`
    names a world model, only what the config asks to be learned on top of it."""
    from ..training.loop import CHECKPOINT

    settings = training_settings(config)
    if config.get("frozen") and config.get("init"):
        raise UserError(
            f"init={config.init}: a world model that stays as it is, frozen=…, has its weights; leave one out"
        )
    folder, recorded = out / CHECKPOINT, None
    if config.get("frozen"):
        recorded = _begin_on_frozen(config, data, out, device, resume)
    else:
        # A function of its own, so that the data it holds goes before the stages load theirs.
        _train_world(config, settings, data, out, device, resume)
    learn_on_top(config, data, folder, device, recorded)
    return folder


def _train_world(
    config: DictConfig, settings: TrainingSettings, data: Recordings, out: Path, device: torch.device, resume: bool
) -> None:
    """Trains the world model itself."""
    import torch
    from torch.utils.tensorboard import SummaryWriter

    from ..episodes.progress import progress_bar
    from ..evaluation.plots import loss_curves
    from ..models.checkpoint import Checkpoint
    from ..models.world_model import WorldModel
    from ..training.loop import CHECKPOINT, Trainer, read_log
    from ..training.schedule import torch_seed

    if config.predictor.steps:
        raise UserError(
            f"predictor.steps={config.predictor.steps}: needs frozen=CHECKPOINT, on whose embeddings it learns"
        )
    # Initial weights are the one thing torch draws from its global generator; it is put back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(settings.seed))
        model = WorldModel(architecture(config, data))
    init = None
    if config.get("init"):
        init = Checkpoint.load(checkpoint_folder(config.init))
        _start_from(init, model)
    asked = stages(config, data.length)
    identity = {"obs": config.obs, "readout.width": model.architecture.readout_width}
    identity |= {f"model.{k}": v for k, v in as_dict(config.model).items()}
    identity |= {f"objective.{k}": v for k, v in as_dict(config.objective).items()}
    if init is not None:
        identity["init"] = init.sha256
    tracked = tracked_columns(data)
    positions = {
        "grounding": config.grounding,
        **{f"{name}.steps": config[name].steps for name in ("readout", "prior")},
    }
    for key, value in positions.items():
        if value and model.readout is None:
            raise UserError(
                f"{key}={value}: reads where things are, and not the same is tracked in {' and '.join(data.envs)}; "
                "leave it 0"
            )
    trainer = Trainer(
        model,
        objective(config),
        data,
        config.obs,
        tracked,
        settings,
        out,
        device,
        identity,
        resume,
        started=init is not None,
        tolerance=tolerance(data),
    )
    if trainer.step == settings.steps:
        require_same_stages(Checkpoint.load(out / CHECKPOINT).about, asked)
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
                raise KeyboardInterrupt(f"to go on, forearm train resume=true out={out} (saved at step {trainer.step})")
    loss_curves(read_log(out), out / "loss.png")


def _start_from(init: Checkpoint, model: WorldModel) -> None:
    """Gives a model the weights of a checkpoint, its normaliser too; only readings, which have a closed form, are not
    taken.

    Raises:
        UserError: naming what is of another shape.
    """
    held, wanted = init.model.architecture, model.architecture
    differ = [
        (f"model.{key}", value, model_group(held)[key])
        for key, value in model_group(wanted).items()
        if value != model_group(held)[key]
    ]
    differ += [
        (key, getattr(wanted, key), getattr(held, key))
        for key in ("observations", "action_size")
        if getattr(wanted, key) != getattr(held, key)
    ]
    for key, value, other in differ:
        raise UserError(f"{key}={value}: the checkpoint to start from has {key}={other}")
    weights = init.model.state_dict().items()
    model.load_state_dict({key: value for key, value in weights if not key.startswith("readout.")}, strict=False)


def model_group(architecture: Architecture) -> dict[str, Any]:
    """The config's model group that gives an architecture."""
    a = architecture
    return {
        "chunk": a.chunk,
        "latent": a.latent,
        "features": a.features,
        "predictor": a.predictor,
        **{f"predictor_{key}": value for key, value in a.predictor_settings.items()},
        "members": a.members,
        "encoder_width": next((settings["width"] for settings in a.encoder_settings.values() if settings), 0),
    }


def _begin_on_frozen(
    config: DictConfig, data: Recordings, out: Path, device: torch.device, resume: bool
) -> Recorded | None:
    """Puts the world model that `frozen` names into `out`, or makes sure that it was, and writes the config, with the
    model as it is. Returns `data` as it sees that, where it is known.

    Raises:
        UserError: see `take_frozen`; where nothing is to be learned, or where it was begun with other settings.
    """
    from ..models.checkpoint import CONFIG, Checkpoint
    from ..training.loop import CHECKPOINT, SNAPSHOT
    from ..training.snapshot import ResumeError, require_same

    asked = stages(config, data.length)
    if not asked:
        raise UserError(
            f"frozen={config.frozen}: set what is to be learned on it: predictor, readout, prior or temporal.steps"
        )
    folder, recorded = out / CHECKPOINT, None
    frozen = Checkpoint.load(checkpoint_folder(config.frozen), device)
    begun: dict[str, Any] = {
        "world": frozen.sha256,
        "data": data.sha256,
        "seed": config.seed,
        "precision": config.precision,
        "readout.width": config.readout.width if config.readout.steps else 0,
        "predictor.steps": config.predictor.steps,
    }
    if config.predictor.steps:
        keys = ("predictor", "predictor_width", "predictor_depth")
        begun |= {f"model.{key}": config.model[key] for key in keys}
    if resume and (folder / CONFIG).exists():
        held = Checkpoint.load(folder, device)
        if (out / SNAPSHOT).exists():
            raise ResumeError(
                f"frozen={config.frozen}: the training in {out} was begun without one; leave it out to resume"
            )
        if "on_top" in held.about:  # 0.1.0 wrote none
            require_same(held.about["on_top"], begun)
        require_same_stages(held.about, asked, predictor_stays=not config.predictor.steps)
    else:
        held, recorded = take_frozen(config, frozen, data, device)
        held = replace(held, about={**held.about, "on_top": begun})
        held.save(folder)
    _write_config_on_top(config, held, out)
    return recorded


def _write_config_on_top(config: DictConfig, held: Checkpoint, out: Path) -> None:
    """Writes a config whose model, and whose training as far as it is told, are those of the world model."""
    from omegaconf import OmegaConf

    told = {key: value for key, value in held.about.get("settings", {}).items() if key in flat(as_dict(config))}
    told |= {f"model.{key}": value for key, value in model_group(held.model.architecture).items()}
    told |= {"steps": held.about["steps"]} if "steps" in held.about else {}
    settings_of = OmegaConf.create(as_dict(config))
    for key, value in told.items():
        if key not in ("seed", "precision", "readout.width", "obs"):
            OmegaConf.update(settings_of, key, value)
    write_config(settings_of, out)


def require_same_stages(about: Mapping[str, Any], asked: Sequence[Stage], predictor_stays: bool = False) -> None:
    """Makes sure that what was learned on top, of which a checkpoint's `about` tells, was learned as it is asked for.

    Raises:
        ResumeError: naming the key and both values.
    """
    from ..models.checkpoint import HEADS
    from ..training.snapshot import require_same

    settings = {stage.name: asdict(stage.settings) for stage in asked}
    for name in HEADS:
        if f"{name}_steps" not in about or (name == "predictor" and predictor_stays):
            continue
        begun = about.get("stages", {}).get(name) or {"steps": about[f"{name}_steps"]}  # 0.1.0 told no more
        now = {key: value for key, value in settings.get(name, {"steps": 0}).items() if key in begun}
        require_same(
            {f"{name}.{key}": value for key, value in begun.items()}, {f"{name}.{k}": v for k, v in now.items()}
        )


def take_frozen(
    config: DictConfig, taken: Checkpoint, data: Recordings, device: torch.device
) -> tuple[Checkpoint, Recorded]:
    """The world model of the checkpoint `taken`, weights and metric as they are, less what was learned on
    top; its readout is a new one, the closed form fitted to `data`, and so is a predictor that is to be learned. And
    `data`, as it sees that.

    Raises:
        UserError: for a checkpoint of another environment, observation or chunk; for a predictor of several members.
    """
    import torch

    from ..models.checkpoint import HEADS
    from ..models.world_model import WorldModel
    from ..training.heads import Recorded
    from ..training.schedule import torch_seed

    for env in data.envs:
        taken.require(env, config.obs, config.model.chunk)
    shapes = {part: column.shape[1:] for part, column in data.columns.items()}
    meet(f"frozen={config.frozen}", taken, f"data={config.data[0]}", shapes, data.worlds)
    wanted, held = architecture(config, data), taken.model.architecture
    new: tuple[str, ...] = ("readout.",)
    on_top = {"stages", *(f"{head}_steps" for head in HEADS)}
    if config.predictor.steps:
        if wanted.members > 1:
            raise UserError(f"model.members={wanted.members}: predictor.steps learns one; set model.members=1")
        new += ("predictor.", "others.")
        held = replace(
            held, predictor=wanted.predictor, predictor_settings=wanted.predictor_settings, members=wanted.members
        )
    else:
        on_top.remove("predictor_steps")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(config.seed))
        model = WorldModel(replace(held, readout=wanted.readout, readout_width=wanted.readout_width)).to(device)
    weights = {key: value for key, value in taken.model.state_dict().items() if not key.startswith(new)}
    model.load_state_dict(weights, strict=False)
    model.eval().requires_grad_(False)
    recorded = Recorded.embed(model, data, tracked_columns(data))
    if model.readout is not None:
        model.readout.fit(recorded.z.flatten(0, 1).to(device), recorded.positions.flatten(0, 1).to(device))
    about = {key: value for key, value in taken.about.items() if key not in on_top}
    return replace(taken, model=model, about=about, prior=None, temporal=None), recorded


def learn_on_top(
    config: DictConfig, data: Recordings, folder: Path, device: torch.device, recorded: Recorded | None = None
) -> None:
    """Adds to a trained checkpoint what the config asks to be learned on its embeddings and is not there yet. Each
    stage takes minutes, and starts over if stopped. `recorded` is `data` as it sees that, where it is known already."""
    from ..episodes.progress import progress_bar
    from ..models.checkpoint import Checkpoint
    from ..training.heads import Recorded
    from ..training.schedule import TrainingError

    checkpoint = Checkpoint.load(folder, device)
    missing = [stage for stage in stages(config, data.length) if f"{stage.name}_steps" not in checkpoint.about]
    if not missing:
        return
    try:
        recorded = recorded or Recorded.embed(checkpoint.model, data, tracked_columns(data))
        for name, settings, train_stage in missing:
            with progress_bar(f"train {name}", settings.steps, "steps") as advance:
                try:
                    learned = train_stage(checkpoint.model, recorded, settings, config.seed, config.precision, advance)
                except TrainingError as error:
                    raise TrainingError(f"{name}.{error}") from None
            added = {} if learned is None else {name: learned}  # predictor and readout are its own
            told = {"stages": {**checkpoint.about.get("stages", {}), name: asdict(settings)}}
            about = {**checkpoint.about, f"{name}_steps": settings.steps, **told}
            checkpoint = replace(checkpoint, about=about, **added)
            checkpoint.save(folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"to go on, forearm train resume=true out={folder.parent}") from None


@contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Holds the first Ctrl-C back, so that a step is never left half-done, and yields whether it was pressed; the
    second one interrupts at once."""
    pressed = False

    def hold(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    if current_thread() is not main_thread():  # only that one may say what signals do
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, hold)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def training_settings(config: DictConfig) -> TrainingSettings:
    """How to train, of a config. UserError for a value that cannot be."""
    from ..training.loop import TrainingSettings

    try:
        return TrainingSettings(**{key: config[key] for key in SETTINGS})
    except ValueError as error:
        raise UserError(str(error)) from None


class Stage(NamedTuple):
    """What can be learned on a trained model's embeddings: its name, in configs and in a checkpoint, its settings, and
    what trains it."""

    name: str
    settings: Any
    train: Callable[..., Any]


def stages(config: DictConfig, length: int) -> list[Stage]:
    """Those that a config asks for, in order, for episodes of `length` steps. UserError for a setting that cannot be,
    of the others as well."""
    from ..training.predictor import PredictorSettings, train_predictor
    from ..training.prior import PriorSettings, train_prior
    from ..training.readout import ReadoutSettings, refine_readout
    from ..training.temporal import TemporalSettings, train_temporal

    if config.prior.steps and config.prior.segment % config.model.chunk:
        raise UserError(f"prior.segment={config.prior.segment}: must be a multiple of model.chunk={config.model.chunk}")
    found = [
        # The readout learns of what is imagined too, and the prior of positions as they are read.
        Stage("predictor", _stage_settings(config, "predictor", PredictorSettings), train_predictor),
        Stage("readout", _stage_settings(config, "readout", ReadoutSettings), refine_readout),
        Stage("prior", _stage_settings(config, "prior", PriorSettings, "segment", length), train_prior),
        Stage("temporal", _stage_settings(config, "temporal", TemporalSettings, "nearest", length), train_temporal),
    ]
    return [stage for stage in found if config[stage.name].steps]


def _stage_settings(config: DictConfig, name: str, settings: Callable[..., S], span: str = "", length: int = 0) -> S:
    """The settings of a stage that 0 steps leave out; they are checked either way, `span` against the `length` of
    episodes only if there are any."""
    at_least(config[name], name, steps=0)
    values = as_dict(config[name])
    if span and values["steps"] and values[span] > length:
        raise UserError(f"{name}.{span}={values[span]}: must be at most {length}, the steps of an episode")
    try:
        return settings(**values | {"steps": max(1, values["steps"])})
    except ValueError as error:
        raise UserError(f"{name}.{error}") from None


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
    sizes = {"chunk": 1, "latent": 1, "features": 1, "predictor_width": 1, "predictor_depth": 0, "encoder_width": 0}
    at_least(m, "model", **sizes, members=1)
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
        members=m.members,
        readout_width=config.readout.width if config.readout.steps else 0,
    )


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
    from ..envs import make_world, observation_shapes

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


def latest(runs: Path = Path("runs/train")) -> Path:
    """The folder of the latest training that can be resumed. UserError where there is none."""
    from ..training.loop import SNAPSHOT

    found = sorted(path.parent for path in runs.glob(f"*/{SNAPSHOT}"))
    if not found:
        raise UserError(f"resume=true: there is no training under {runs}; give its folder as out=…")
    return found[-1]
