"""Settings of a training: the model, how it learns, and what is learned on its embeddings."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from ..devices import Compute
from ..episodes.store import OBS
from ..models.precision import PRECISIONS
from ..models.settings import ModelSettings
from ..settings import SettingError, at_least, key, not_negative, one_of, positive, subset, tree, within
from .objectives import OBJECTIVES, Objective, make_objective
from .schedule import warm_cosine


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train a world model. `horizon` is the rollout's H; `*_every` are in steps.

    `relax` is the share of each window that all members learn, of a model that has several (`members_loss`);
    `grounding` weighs what `Grounding` tells of the tracked positions, `grounding_arm` what it tells of the arm's
    proprioception; `ridge` is that of `slow_metric`.
    """

    steps: int = key(3000, "optimiser steps", first=True)
    batch: int = key(96, "windows a step", first=True)
    horizon: int = key(4, "model steps of the rollout loss")
    learning_rate: float = key(0.001, "its peak: a cosine with a short warm-up", first=True)
    weight_decay: float = 1e-4
    warmup: int = 100
    clip: float = 1.0
    relax: float = 0.1
    grounding: float = key(0.0, "weight of telling embeddings where tracked things are; 0: not told")
    grounding_arm: float = key(0.0, "likewise where the arm is, by its proprioception")
    ridge: float = 0.1
    precision: str = key("auto", "auto (bf16 where it pays), bf16, fp32")
    seed: int = key(0, "of weights, batches and noise", first=True)
    log_every: int = 20
    validate_every: int = key(1000, "steps from one validation to the next")
    save_every: int = key(500, "steps from one snapshot to the next")

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.learning_rate * warm_cosine(step, self.steps, self.warmup)

    def __post_init__(self) -> None:
        at_least(self, steps=1, batch=1, horizon=1, log_every=1, validate_every=1, save_every=1, seed=0)
        positive(self, "learning_rate", "ridge")
        within(self, 0, 1, "relax", why="it is a share")
        not_negative(self, "grounding", "grounding_arm")
        one_of(self, precision=PRECISIONS)


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """What keeps the latent space from collapsing; what is None is as the objective has it."""

    name: str = "vicreg"
    weight: float | None = key(None, "of the penalty; null: the objective's own")
    covariance: float | None = None
    decay: float | None = None

    def __post_init__(self) -> None:
        one_of(self, name=OBJECTIVES)
        self.make()

    def make(self) -> Objective:
        return make_objective(self.name, **self.chosen)

    @property
    def chosen(self) -> dict[str, float]:
        values = {each: getattr(self, each) for each in ("weight", "covariance", "decay")}
        return {each: value for each, value in values.items() if value is not None}

    @property
    def complete(self) -> dict[str, Any]:
        """With the objective's own settings, as a checkpoint tells them."""
        known = inspect.signature(OBJECTIVES[self.name]).parameters
        own = {each: known[each].default for each in ("weight", "covariance", "decay") if each in known}
        return {"name": self.name, **own, **self.chosen}


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Of what is learned on a trained model's embeddings; 0 steps leave it out."""

    steps: int = key(0, "its steps; 0: none", first=True)
    batch: int = 256
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        at_least(self, steps=0, batch=1)
        positive(self, "learning_rate")


@dataclass(frozen=True, kw_only=True)
class PredictorSettings(StageSettings):
    """How to train a predictor on embeddings that stay as they are. `horizon` H: model steps it imagines in a row."""

    batch: int = 512
    horizon: int = 6
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, horizon=1)


@dataclass(frozen=True, kw_only=True)
class ReadoutSettings(StageSettings):
    """How to refine a readout. `horizon` H: how many model steps ahead it is to read what is imagined."""

    batch: int = 512
    width: int = 256
    horizon: int = 6
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, width=1, horizon=1)


@dataclass(frozen=True, kw_only=True)
class PriorSettings(StageSettings):
    """How to train an action prior.

    `segment` L environment steps it answers with; `ahead` the mean distance of a hindsight goal, in environment steps;
    `jitter` deviation of the noise on embeddings, in units of theirs, for imagined ones are never quite like encoded
    ones.
    """

    segment: int = 6
    width: int = 384
    depth: int = 3
    ahead: float = 20.0
    jitter: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, segment=1, width=1, depth=1)
        if self.ahead < self.segment:
            raise SettingError(f"ahead={self.ahead}: must be at least segment={self.segment}")


@dataclass(frozen=True, kw_only=True)
class TemporalSettings(StageSettings):
    """How to train a temporal distance.

    A pair is at least `nearest` and on average `ahead` environment steps apart: where the arm has moved on and objects
    have mostly stayed, so that the arm's pose counts for little. `jitter` is the deviation of the noise on embeddings,
    in units of theirs, for imagined ones are never quite like encoded ones.
    """

    batch: int = 512
    width: int = 256
    features: int = 32
    nearest: int = 8
    ahead: float = 20.0
    jitter: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, batch=2, width=1, features=1, nearest=1)
        if self.ahead < self.nearest:
            raise SettingError(f"ahead={self.ahead}: must be at least nearest={self.nearest}")


SPANS = {"prior": "segment", "temporal": "nearest"}
"""What of a stage must fit into an episode."""


@dataclass(frozen=True, kw_only=True)
class LearningSettings(TrainingSettings):
    """All that decides what is learned of recorded episodes."""

    obs: str = key("pixels", "what the model sees: pixels, state, or pixels+proprio", first=True)
    model: ModelSettings = key(ModelSettings, "the world model")
    objective: ObjectiveSettings = key(ObjectiveSettings, "against collapse", first=True)
    predictor: PredictorSettings = key(PredictorSettings, "a new predictor on frozen=…'s embeddings, of model's size")
    readout: ReadoutSettings = key(ReadoutSettings, "what reads positions off embeddings")
    prior: PriorSettings = key(PriorSettings, "a learned action prior, for tasks that samples alone do not solve")
    temporal: TemporalSettings = key(TemporalSettings, "a learned temporal distance, without labels")

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of(self, obs=OBS)
        if self.prior.steps and self.prior.segment % self.model.chunk:
            raise SettingError(
                f"prior.segment={self.prior.segment}: must be a multiple of model.chunk={self.model.chunk}"
            )

    @property
    def training(self) -> TrainingSettings:
        """How the world model itself is trained."""
        return subset(TrainingSettings, self)

    def fit_into(self, length: int) -> None:
        """SettingError where windows do not fit into episodes of `length` steps."""
        chunk = self.model.chunk
        if chunk * self.horizon > length:
            raise SettingError(
                f"model.chunk={chunk} x horizon={self.horizon}: must be at most {length}, the steps of an episode"
            )
        for name, span in SPANS.items():
            settings = getattr(self, name)
            if settings.steps and (value := getattr(settings, span)) > length:
                raise SettingError(f"{name}.{span}={value}: must be at most {length}, the steps of an episode")

    def dotted(self, group: str) -> dict[str, Any]:
        """The settings of a group by dotted key, as snapshots and checkpoints name them."""
        settings = getattr(self, group)
        values = settings.complete if isinstance(settings, ObjectiveSettings) else tree(settings)
        if values.get("encoder") == "auto":
            values.pop("encoder")  # as of models from before there was a choice
        return {f"{group}.{name}": value for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class TrainSettings(LearningSettings, Compute):
    """`forearm train`: what to learn from what, and where to put it."""

    data: tuple[str, ...] = key((), "folder that `forearm record` wrote, or several: [A,B]", first=True, path=True)
    init: str | None = key(None, "a checkpoint to start from, with steps and data of one's own", path=True)
    frozen: str | None = key(None, "a checkpoint whose world model stays: only what is on top is learned", path=True)
    out: str | None = key(None, "run folder; null: a new one under runs/train", first=True, path=True)
    resume: bool = key(
        False, "go on in `out` (null: the latest run), as it was begun; with more steps, longer", first=True
    )

    def __post_init__(self) -> None:
        LearningSettings.__post_init__(self)
        Compute.__post_init__(self)
        if self.frozen and self.init:
            raise SettingError(f"init={self.init}: a frozen world model, frozen=…, has its weights; leave one out")
