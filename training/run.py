"""A training from settings to a checkpoint: the world model, and in stages what is learned on its embeddings."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, NamedTuple

import torch

from ..episodes import Recordings
from ..episodes.progress import progress_bar
from ..errors import UserError
from ..evaluation.plots import loss_curves
from ..models.checkpoint import CONFIG, HEADS, Checkpoint, checkpoint_folder
from ..models.world_model import Architecture, WorldModel
from ..settings import SettingError, by_key, read_settings, write_settings
from .heads import Recorded
from .loop import CHECKPOINT, SNAPSHOT, Trainer, read_log
from .objectives import OBJECTIVES
from .predictor import train_predictor
from .prior import train_prior
from .readout import refine_readout
from .schedule import TrainingError, torch_seed
from .settings import LearningSettings, TrainSettings
from .snapshot import ResumeError, require_same
from .temporal import train_temporal
from .worlds import tolerance, tracked_columns

STAGES: dict[str, Callable[..., Any]] = {
    # The readout learns of what is imagined too, and the prior of positions as they are read.
    "predictor": train_predictor,
    "readout": refine_readout,
    "prior": train_prior,
    "temporal": train_temporal,
}
"""What can be learned on a trained model's embeddings, in order, by the names of its settings."""
assert tuple(STAGES) == HEADS


class Stage(NamedTuple):
    """One of them, with its settings."""

    name: str
    settings: Any
    train: Callable[..., Any]


def stages(settings: LearningSettings) -> list[Stage]:
    """Those that are asked for."""
    found = [Stage(name, getattr(settings, name), train) for name, train in STAGES.items()]
    return [stage for stage in found if stage.settings.steps]


def learn(settings: TrainSettings, data: Recordings, out: Path, device: torch.device) -> Checkpoint:
    """Trains in `out`, with a progress bar, log, TensorBoard and plot, and returns what is there then. Where `frozen`
    names a world model, only what is asked to be learned on top of it.

    Raises:
        UserError: for settings that the data cannot serve; TrainingError where it diverges; ResumeError where it was
            begun with other settings.
    """
    folder, recorded = out / CHECKPOINT, None
    if settings.frozen:
        recorded = _begin_on_top(settings, data, out, device)
    else:
        # A function of its own, so that the data it holds goes before the stages load theirs.
        _train_world(settings, data, out, device)
    _learn_on_top(settings, data, folder, device, recorded)
    return Checkpoint.load(folder, device)


def _train_world(settings: TrainSettings, data: Recordings, out: Path, device: torch.device) -> None:
    """Trains the world model itself."""
    from torch.utils.tensorboard import SummaryWriter

    if settings.predictor.steps:
        raise SettingError(
            f"predictor.steps={settings.predictor.steps}: needs frozen=CHECKPOINT, on whose embeddings it learns"
        )
    # Initial weights are the one thing torch draws from its global generator; it is put back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(settings.seed))
        model = WorldModel(architecture(settings, data))
    init = None
    if settings.init:
        init = Checkpoint.load(checkpoint_folder(settings.init))
        _start_from(init, model)
    settings.fit_into(data.length)
    identity = {"obs": settings.obs, "readout.width": model.architecture.readout_width}
    identity |= settings.dotted("model") | settings.dotted("objective")
    if init is not None:
        identity["init"] = init.sha256
    positions = {
        "grounding": settings.grounding,
        "readout.steps": settings.readout.steps,
        "prior.steps": settings.prior.steps,
    }
    for key, value in positions.items():
        if value and model.readout is None:
            raise SettingError(
                f"{key}={value}: reads where things are, and not the same is tracked in {' and '.join(data.envs)}; "
                "leave it 0"
            )
    trainer = Trainer(
        model,
        settings.objective.make(),
        data,
        settings.obs,
        tracked_columns(data),
        settings.training,
        out,
        device,
        identity,
        settings.resume,
        started=init is not None,
        tolerance=tolerance(data),
    )
    if trainer.step == settings.steps:
        _require_same_stages(Checkpoint.load(out / CHECKPOINT).about, stages(settings))
    write_settings(settings, out)
    if settings.resume:
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
        if pressed():  # after the last step, before what is next
            raise KeyboardInterrupt(f"to go on, forearm train resume=true out={out}")
    loss_curves(read_log(out), out / "loss.png")


def architecture(settings: LearningSettings, data: Recordings) -> Architecture:
    """What the settings and the data's shapes make together.

    Raises:
        UserError: for a part of an observation that a recording lacks.
    """
    parts = settings.obs.split("+")
    for recording in data.parts:
        for part in parts:
            if part not in (held := recording.manifest.columns):
                there = ", ".join(sorted(held))
                raise UserError(f"obs={settings.obs}: {recording.folder} was recorded without {part}; it has {there}")
    columns = data.columns
    for part in parts:
        if part not in columns:
            raise UserError(f"obs={settings.obs}: {part} is not of one shape in {' and '.join(data.envs)}")
    settings.fit_into(data.length)
    m = settings.model
    encoders = {part: "cnn" if part == "pixels" else "mlp" for part in parts}
    if m.encoder != "auto":
        encoders[parts[0]] = m.encoder  # of what is seen first
    tracked = list(tracked_columns(data).values())
    # What is read off embeddings must be the same thing, whatever the environment.
    alike = len(data.envs) == 1 or ("state" in columns and all(one == tracked[0] for one in tracked))
    width: dict[str, Any] = {"width": m.encoder_width} if m.encoder_width else {}
    return Architecture(
        observations={part: list(columns[part].shape[1:]) for part in parts},
        encoders=encoders,
        action_size=columns["action"].shape[1],
        chunk=m.chunk,
        latent=m.latent,
        features=m.features,
        predictor=m.predictor,
        predictor_settings={"width": m.predictor_width, "depth": m.predictor_depth},
        encoder_settings={parts[0]: width},
        readout=(tracked[0].stop - tracked[0].start) if alike else 0,
        members=m.members,
        readout_width=settings.readout.width if settings.readout.steps else 0,
    )


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
    """The settings `model` that give an architecture."""
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


def _begin_on_top(settings: TrainSettings, data: Recordings, out: Path, device: torch.device) -> Recorded | None:
    """Puts the world model that `frozen` names into `out`, or makes sure that it was, and writes the settings, with the
    model as it is. Returns `data` as it sees that, where it is known.

    Raises:
        UserError: see `_take_frozen`; where nothing is to be learned, or where it was begun with other settings.
    """
    settings.fit_into(data.length)
    asked = stages(settings)
    assert settings.frozen
    if not asked:
        raise SettingError(
            f"frozen={settings.frozen}: set what is to be learned on it: predictor, readout, prior or temporal.steps"
        )
    folder, recorded = out / CHECKPOINT, None
    world = Checkpoint.load(checkpoint_folder(settings.frozen), device)
    begun: dict[str, Any] = {
        "world": world.sha256,
        "data": data.sha256,
        "seed": settings.seed,
        "precision": settings.precision,
        "readout.width": settings.readout.width if settings.readout.steps else 0,
        "predictor.steps": settings.predictor.steps,
    }
    if settings.predictor.steps:
        keys = ("predictor", "predictor_width", "predictor_depth")
        begun |= {f"model.{key}": getattr(settings.model, key) for key in keys}
    if settings.resume and (folder / CONFIG).exists():
        held = Checkpoint.load(folder, device)
        if (out / SNAPSHOT).exists():
            raise ResumeError(
                f"frozen={settings.frozen}: the training in {out} was begun without one; leave it out to resume"
            )
        if "on_top" in held.about:  # 0.1.0 wrote none
            require_same(held.about["on_top"], begun)
        _require_same_stages(held.about, asked, predictor_stays=not settings.predictor.steps)
    else:
        held, recorded = _take_frozen(settings, world, data, device)
        held = replace(held, about={**held.about, "on_top": begun})
        held.save(folder)
    write_settings(_as_taken(settings, held), out)
    return recorded


def _as_taken(settings: TrainSettings, held: Checkpoint) -> TrainSettings:
    """Settings whose model, and whose training as far as it is told, are those of the world model that was taken."""
    told = held.about.get("settings", {})
    names = ("batch", "horizon", "learning_rate", "weight_decay", "warmup", "clip", "relax")
    names += ("grounding", "grounding_arm", "ridge")
    kept = {name: told[name] for name in names if name in told}
    objective = {key.removeprefix("objective."): value for key, value in told.items() if key.startswith("objective.")}
    if objective.get("name") in OBJECTIVES:
        kept["objective"] = type(settings.objective)(**objective)
    kept |= {"steps": held.about["steps"]} if "steps" in held.about else {}
    return replace(settings, model=replace(settings.model, **model_group(held.model.architecture)), **kept)


def _require_same_stages(about: Mapping[str, Any], asked: Sequence[Stage], predictor_stays: bool = False) -> None:
    """Makes sure that what was learned on top, of which a checkpoint's `about` tells, was learned as it is asked for.

    Raises:
        ResumeError: naming the key and both values.
    """
    now = {stage.name: asdict(stage.settings) for stage in asked}
    for name in STAGES:
        if f"{name}_steps" not in about or (name == "predictor" and predictor_stays):
            continue
        begun = about.get("stages", {}).get(name) or {"steps": about[f"{name}_steps"]}  # 0.1.0 told no more
        values = {key: value for key, value in now.get(name, {"steps": 0}).items() if key in begun}
        require_same(
            {f"{name}.{key}": value for key, value in begun.items()},
            {f"{name}.{key}": value for key, value in values.items()},
        )


def _take_frozen(
    settings: TrainSettings, taken: Checkpoint, data: Recordings, device: torch.device
) -> tuple[Checkpoint, Recorded]:
    """The world model of the checkpoint `taken`, weights and metric as they are, less what was learned on
    top; its readout is a new one, the closed form fitted to `data`, and so is a predictor that is to be learned. And
    `data`, as it sees that.

    Raises:
        UserError: for a checkpoint of another environment, observation or chunk; for a predictor of several members.
    """
    for env in data.envs:
        taken.require(env, settings.obs, settings.model.chunk)
    shapes = {part: column.shape[1:] for part, column in data.columns.items()}
    taken.meet(f"frozen={settings.frozen}", f"data={settings.data[0]}", shapes, data.worlds)
    wanted, held = architecture(settings, data), taken.model.architecture
    new: tuple[str, ...] = ("readout.",)
    on_top = {"stages", *(f"{head}_steps" for head in STAGES)}
    if settings.predictor.steps:
        if wanted.members > 1:
            raise SettingError(f"model.members={wanted.members}: predictor.steps learns one; set model.members=1")
        new += ("predictor.", "others.")
        held = replace(
            held, predictor=wanted.predictor, predictor_settings=wanted.predictor_settings, members=wanted.members
        )
    else:
        on_top.remove("predictor_steps")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(settings.seed))
        model = WorldModel(replace(held, readout=wanted.readout, readout_width=wanted.readout_width)).to(device)
    weights = {key: value for key, value in taken.model.state_dict().items() if not key.startswith(new)}
    model.load_state_dict(weights, strict=False)
    model.eval().requires_grad_(False)
    recorded = Recorded.embed(model, data, tracked_columns(data))
    if model.readout is not None:
        model.readout.fit(recorded.z.flatten(0, 1).to(device), recorded.positions.flatten(0, 1).to(device))
    about = {key: value for key, value in taken.about.items() if key not in on_top}
    return replace(taken, model=model, about=about, prior=None, temporal=None), recorded


def _learn_on_top(
    settings: TrainSettings, data: Recordings, folder: Path, device: torch.device, recorded: Recorded | None
) -> None:
    """Adds to a trained checkpoint what is asked to be learned on its embeddings and is not there yet. Each stage takes
    minutes, and starts over if stopped. `recorded` is `data` as it sees that, where it is known already."""
    checkpoint = Checkpoint.load(folder, device)
    missing = [stage for stage in stages(settings) if f"{stage.name}_steps" not in checkpoint.about]
    if not missing:
        return
    try:
        recorded = recorded or Recorded.embed(checkpoint.model, data, tracked_columns(data))
        for name, how, train_stage in missing:
            with progress_bar(f"train {name}", how.steps, "steps") as advance:
                try:
                    learned = train_stage(checkpoint.model, recorded, how, settings.seed, settings.precision, advance)
                except TrainingError as error:
                    raise TrainingError(f"{name}.{error}") from None
            added = {} if learned is None else {name: learned}  # predictor and readout are its own
            told = {"stages": {**checkpoint.about.get("stages", {}), name: asdict(how)}}
            about = {**checkpoint.about, f"{name}_steps": how.steps, **told}
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


def begun(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given, by dotted key or as whole groups, with the settings that the training to be resumed was begun
    with, in `out` or else in the latest run.

    Raises:
        UserError: where there is none, or another choice of a group is asked for.
    """
    given = by_key(given)  # a whole group replaces every setting of it
    folder = Path(given["out"]) if given.get("out") else latest()
    if not (folder / "config.yaml").is_file():
        if "data" not in given:
            raise UserError(f"resume=true: there is no training in {folder}; give its folder as out=…")
        return {**given, "out": str(folder)}
    held = read_settings(folder)
    known = {each.split(".")[0] for each in TrainSettings.__dataclass_fields__}
    held = {key: value for key, value in held.items() if key.split(".")[0] in known}
    if given.get("objective", held.get("objective")) != held.get("objective"):
        raise UserError(
            f"objective={given['objective']}: this training was begun with objective={held['objective']}; "
            "keep it to resume"
        )
    return {**held, **given, "out": str(folder)}


def latest(runs: Path = Path("runs/train")) -> Path:
    """The folder of the latest training that can be resumed. UserError where there is none."""
    found = sorted(path.parent for path in runs.glob(f"*/{SNAPSHOT}"))
    if not found:
        raise UserError(f"resume=true: there is no training under {runs}; give its folder as out=…")
    return found[-1]
