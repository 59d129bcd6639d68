"""The training loop: windows of recorded episodes in, a checkpoint out; it can be stopped and resumed at any step.

B windows a batch, H model steps of rollout, K environment steps in one model step, D latent size, E members.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..episodes import Recordings, WindowSampler, evaluation_windows, windows
from ..episodes.store import leftovers
from ..files import replacing
from ..models.checkpoint import ENVS, RUN, Checkpoint, not_finite
from ..models.metric import slow_metric
from ..models.precision import use_bf16
from ..models.world_model import WorldModel
from . import snapshot
from .grounding import Grounding
from .members import draw_lots, members_loss
from .objectives import Objective
from .schedule import TrainingError, diverged, torch_seed
from .settings import TrainingSettings
from .validation import Validation, encode_windows, validate

LOG, SNAPSHOT, CHECKPOINT = "log.jsonl", "snapshot.safetensors", RUN
VALIDATION_WINDOWS = 800
MAY_CHANGE = ("log_every", "validate_every", "save_every")
"""Settings that do not shape what is learned."""


class Trainer:
    """One training run in the folder `out`. `run()` yields after each step; leaving it early loses at most what
    `save()`, which may be called at any step, would have kept.

    What is resumed may be given more `steps`: from there on the learning rate is what it would be, had they been that
    many from the beginning. `lengthened` lists the steps (done, asked for before) at which that happened. Of a model
    that is `started`, from the weights of another, the normaliser is kept too. `tolerance` is that of the environment,
    metres, if known.

    Raises:
        ResumeError: see `snapshot.load`; or where it was begun with other settings; it names the key and both values.
    """

    def __init__(
        self,
        model: WorldModel,
        objective: Objective,
        data: Recordings,
        obs: str,
        tracked: Mapping[str, slice],
        settings: TrainingSettings,
        out: Path,
        device: torch.device,
        identity: Mapping[str, Any],
        resume: bool = False,
        *,
        started: bool = False,
        tolerance: float | None = None,
    ) -> None:
        self.model, self.settings = model.to(device), settings
        self.data, self.obs, self.out, self.device = data, obs, out, device
        parts = list(model.architecture.observations)
        self.columns = data.load("train", [*parts, "action"])
        self._tracked = {split: data.load_tracked(split, tracked) for split in ("train", "val")}
        self._held_out = data.load("val", [*parts, "action"])
        self._lots = draw_lots(model.members, len(self.columns["action"]), settings.seed).to(device)
        self._tolerance = tolerance
        if not resume and not started:
            vectors = {p: torch.from_numpy(c).flatten(0, 1) for p, c in self.columns.items() if p != "pixels"}
            model.fit_normaliser(vectors)
        objective.begin(model)
        self.objective = objective.to(device)
        self._modules: dict[str, nn.Module] = {"model": model, "objective": objective}
        learned = list(model.parameters())
        if settings.grounding:
            self.columns["tracked"] = self._tracked["train"]
        if settings.grounding_arm:
            seen = self.columns if "proprio" in self.columns else data.load("train", ["proprio"])
            self.columns["arm"] = seen["proprio"]
        latent, weights = model.architecture.latent, {"tracked": settings.grounding, "arm": settings.grounding_arm}
        self._groundings = {
            name: (Grounding(latent, self.columns[name]).to(device), weight)
            for name, weight in weights.items()
            if weight
        }
        for name, (grounding, _) in self._groundings.items():
            self._modules[f"grounding.{name}"] = grounding
            learned += grounding.parameters()
        # Fused AdamW is one kernel for all parameters; the unfused one is a tenth of a small model's step.
        self.optimizer = torch.optim.AdamW(
            learned, settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay, fused=True
        )
        shaping = {key: value for key, value in asdict(settings).items() if key not in MAY_CHANGE}
        self.identity = {**shaping, **identity, "data": data.sha256}
        self.step = 0
        self.lengthened: list[list[int]] = []
        self.validation: Validation | None = None
        self._bf16 = use_bf16(settings.precision, device, pays_on_cpu="pixels" in obs)
        self._noise = torch.Generator(device)
        self._log = out / LOG
        if resume:
            self._resume(out / SNAPSHOT)

    def run(self, record: Callable[[dict[str, float]], None] = lambda line: None) -> Iterator[Validation | None]:
        """Trains to the end, yielding once a step the validation if there was one; `record` gets each log line.

        Raises:
            TrainingError: when the loss, or what is to be saved, is not finite any more. What was saved before is
                still there.
        """
        s = self.settings
        span = self.model.chunk * s.horizon
        sampler = WindowSampler(len(self.columns["action"]), self.data.length, span, s.batch, s.seed)
        self.model.train()
        self._forget_after(self.step)
        if self.step == 0:
            self.save()  # whatever happens from here on, it can be resumed
        for path in (*leftovers(self.out), *leftovers(self.out / CHECKPOINT)):
            path.unlink(missing_ok=True)
        while self.step < s.steps:
            episode, start = sampler.indices(self.step)
            batch = windows(self.columns, episode, start, self.model.chunk, s.horizon)
            tensors = {name: torch.from_numpy(array).to(self.device) for name, array in batch.items()}
            line = self._train_step(tensors, self._lots[episode])
            self.step += 1
            last = self.step == s.steps
            if self.step % s.log_every == 0 or last:
                values = {key: float(value) for key, value in line.items()}
                self._require_finite(loss=line["loss"])
                self._write(record, {"step": self.step, **values})
            self.validation = None
            if self.step % s.validate_every == 0 or last:
                self.validation = self._validate()
                self._write(record, {"step": self.step, **self.validation.figures})
            if self.step % s.save_every == 0 or last:
                self.save()
            yield self.validation

    def save(self) -> None:
        """Writes the checkpoint, then the snapshot: if the latter is at some step, so is the former.

        Raises:
            TrainingError: where something of it is not finite; nothing is written.
        """
        self._fit_readings()
        tensors = snapshot.tensors_of(self._modules, self.optimizer)
        self._require_finite(**tensors)
        size = self.model.architecture.action_size
        about = {
            "steps": self.step,
            "seed": self.settings.seed,
            "objective": type(self.objective).__name__,
            **self.data.about,
            "settings": {key: value for key, value in self.identity.items() if key not in ("steps", "seed", "data")},
        }
        if self.lengthened:
            about["lengthened"] = self.lengthened
        env_config = dict(self.data.parts[0].manifest.env_config)
        bounds = (-1.0,) * size, (1.0,) * size
        Checkpoint(self.model, ENVS.join(self.data.envs), env_config, self.obs, *bounds, about).save(
            self.out / CHECKPOINT
        )
        snapshot.save(self.out / SNAPSHOT, tensors, self.step, {**self.identity, "lengthened": self.lengthened})

    def _resume(self, path: Path) -> None:
        tensors, self.step, begun = snapshot.load(path)
        steps, before = self.settings.steps, begun["steps"]
        if steps < before:
            raise snapshot.ResumeError(
                f"steps={steps}: this training was begun with steps={before}; keep it to resume, or ask for more"
            )
        snapshot.require_same(begun, {**self.identity, "steps": before})
        snapshot.restore(path, tensors, self._modules, self.optimizer)
        self.lengthened = begun.get("lengthened", [])  # 0.1.0 could not
        if steps > before and self.step:
            self.lengthened = [*self.lengthened, [self.step, before]]

    def _require_finite(self, **tensors: Tensor) -> None:
        if not_finite(tensors):
            raise self._diverged()

    def _diverged(self) -> TrainingError:
        return diverged(self.settings.learning_rate, self.step)

    def _train_step(self, batch: dict[str, Tensor], lots: Tensor) -> dict[str, Tensor]:
        s = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = s.rate(self.step)
        actions = batch.pop("action")
        known = {name: batch.pop(name) for name in self._groundings}
        frames = {part: value.flatten(0, 1) for part, value in batch.items()}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            z = self.model.encode(frames).unflatten(0, (len(actions), -1))
            predicted = self.model.rollout(z[:, 0], actions[:, None])[..., 0, :, :]
        error = (predicted - self.objective.targets(frames, z)[:, 1:]).square()
        prediction = self._over_members(error, lots)
        loss, told = prediction, {}
        if known:
            seen = z.new_zeros(())
            for name, (grounding, weight) in self._groundings.items():
                # Which member is nearest is a matter of positions as well.
                error = error + weight * grounding(predicted, known[name][:, 1:])
                seen = seen + weight * grounding(z, known[name]).mean()
            loss = self._over_members(error, lots) + seen
            told["grounding_loss"] = (loss - prediction).detach()
        # A generator seeded by the step makes a resumed run draw what the unbroken one would have.
        self._noise.manual_seed(torch_seed(s.seed, self.step))
        penalty = self.objective.penalty(z, self._noise)
        loss = loss + self.objective.weight * penalty
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), s.clip)
        self.optimizer.step()
        self.objective.after_step(self.model)
        parts = {"prediction_loss": prediction.detach(), "penalty_loss": penalty.detach(), **told}
        return {"loss": loss.detach(), **parts}

    def _over_members(self, error: Tensor, lots: Tensor) -> Tensor:
        """One loss of errors (…, B, H, D)."""
        return error.mean() if self.model.members == 1 else members_loss(error, lots, self.settings.relax)

    def _validate(self) -> Validation:
        train, held_out = self._cover("train"), self._cover("val")
        try:
            found = validate(self.model, train, held_out, self.device, self._tolerance)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            raise self._diverged() from None
        self._require_finite(**{name: torch.tensor(value) for name, value in found.figures.items()})
        return found

    def _fit_readings(self) -> None:
        """What is read off embeddings and has a closed form: the metric, and where the tracked points are."""
        self.model.eval()
        cover = self._cover("train")
        z = encode_windows(self.model, cover, self.device)
        self._require_finite(z=z)
        try:
            self.model.metric.copy_(slow_metric(z, self.settings.ridge))
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            raise self._diverged() from None
        if self.model.readout is not None:
            positions = torch.from_numpy(cover["tracked"]).flatten(0, 1)
            self.model.readout.fit(z.flatten(0, 1).to(self.device), positions.to(self.device))
        self.model.train()

    def _cover(self, split: str) -> dict[str, np.ndarray]:
        """Windows spread evenly over a split, with the `tracked` points for the probe."""
        columns = {**(self.columns if split == "train" else self._held_out), "tracked": self._tracked[split]}
        horizon, chunk = self.settings.horizon, self.model.chunk
        where = evaluation_windows(len(columns["tracked"]), self.data.length, chunk * horizon, VALIDATION_WINDOWS)
        return windows(columns, *where, chunk, horizon)

    def _write(self, record: Callable[[dict[str, float]], None], line: dict[str, float]) -> None:
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        record(line)

    def _forget_after(self, step: int) -> None:
        """Drops log lines of steps that a resumed run will do again, a torn last one too."""
        lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True) if self._log.exists() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        with replacing(self._log) as temporary:
            temporary.write_text("".join(kept), encoding="utf-8")


def read_log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
