"""What a unit is called does not matter: what is learned of metres, of millimetres and of kilometres is the same.

Scales are powers of two, by which floating-point numbers are multiplied exactly, so that "the same" is bit for bit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from forearm.episodes.dataset import Recordings
from forearm.models.encoders import VectorEncoder
from forearm.models.normalisers import LEAST, STILL, deviation, spread
from forearm.models.readout import Readout
from forearm.models.world_model import Architecture, WorldModel
from forearm.training.grounding import Grounding
from forearm.training.heads import Recorded
from forearm.training.loop import Trainer, TrainingSettings, read_log
from forearm.training.objectives import make_objective
from forearm.training.prior import PriorSettings, train_prior
from forearm.training.readout import ReadoutSettings, refine_readout
from forearm.training.validation import Validation, digits
from torch import Tensor

CUBE = slice(9, 12)
SCALES = {"millimetres": 1024.0, "kilometres": 1 / 1024}
PART = np.where(np.arange(17) // 3 == 3, 1 / 1024, 1.0).astype(np.float32)  # the cube's place beside an arm in metres


@dataclass(frozen=True)
class Scaled(Recordings):
    """A recording whose `state` is in other units."""

    scale: float | np.ndarray = 1.0

    def load(self, split: str, columns: object) -> dict[str, np.ndarray]:
        held = super().load(split, columns)  # pyright: ignore[reportArgumentType]
        return {name: array * np.float32(self.scale) if name == "state" else array for name, array in held.items()}

    def load_tracked(self, split: str, tracked: Mapping[str, slice]) -> np.ndarray:
        return self.load(split, ["state"])["state"][..., tracked["push"]]


def learned(data: Recordings, out: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The weights that push is learned with, with all that normalises, and the last validation's figures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = WorldModel(
            Architecture(
                *({"state": [17]}, {"state": "mlp"}, 5, 2, 8, 16),
                predictor_settings={"width": 16, "depth": 1},
                encoder_settings={"state": {"width": 8}},
                readout=3,
                readout_width=8,
            )
        )
        settings = TrainingSettings(steps=12, batch=8, horizon=2, grounding=1.0, precision="fp32")
        objective, tracked = make_objective("vicreg"), {"push": CUBE}
        trainer = Trainer(model, objective, data, "state", tracked, settings, out, torch.device("cpu"), {})
        for _ in trainer.run():
            pass
        grounding = trainer._modules["grounding.tracked"].state_dict()
        model.eval().requires_grad_(False)
        recorded = Recorded.embed(model, data, tracked)
        refine_readout(model, recorded, ReadoutSettings(steps=4, batch=8, width=8, horizon=2), 0, "fp32")
        prior = train_prior(model, recorded, PriorSettings(steps=4, batch=8, width=8, depth=1), 0, "fp32")
    heads = {"grounding": grounding, "prior": prior.state_dict(), "model": model.state_dict()}
    tensors = {f"{head}.{name}": value for head, held in heads.items() for name, value in held.items()}
    return tensors, read_log(out)[-1]


UNITS = {f"grounding.{name}" for name in ("mean", "std")} | {"prior.place", "prior.reach"}
UNITS |= {f"model.encoders.state.{name}" for name in ("mean", "std")}
UNITS |= {f"model.readout.{name}" for name in ("solution", "offset", "spread")}
"""What is in the environment's units."""


@pytest.fixture(scope="module")
def metres(state_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, float]]:
    return learned(Recordings.open([state_run / "data"]), tmp_path_factory.mktemp("metres"))


@pytest.mark.parametrize("unit", SCALES)
def test_another_unit_is_learned_as_well(
    state_run: Path, tmp_path: Path, metres: tuple[dict[str, Tensor], dict[str, float]], unit: str
) -> None:
    tensors, figures = learned(Scaled(Recordings.open([state_run / "data"]).parts, SCALES[unit]), tmp_path)
    for name, value in metres[0].items():
        expected = value * SCALES[unit] if name in UNITS else value
        assert torch.equal(tensors[name], expected), name
    for name, value in metres[1].items():
        assert figures[name] == pytest.approx(value * SCALES[unit] if name.endswith("_cm") else value, rel=1e-6), name


def test_a_part_that_moves_by_far_less_is_learned_as_well(
    state_run: Path, tmp_path: Path, metres: tuple[dict[str, Tensor], dict[str, float]]
) -> None:
    tensors, figures = learned(Scaled(Recordings.open([state_run / "data"]).parts, PART), tmp_path)
    for name, value in metres[0].items():
        if name not in UNITS:
            assert torch.equal(tensors[name], value), name
    assert figures["imagined_cm"] == pytest.approx(metres[1]["imagined_cm"] / 1024, rel=1e-6)


# What never moves


def columns(*of: Tensor) -> Tensor:
    return torch.stack(of, -1)


WALK = torch.linspace(-1, 1, 1001)


def test_what_never_moves_does_not_blow_up() -> None:
    """Nothing, a constant, and the noise of a simulator about a place and about zero, beside what moves."""
    values = columns(0.2 * WALK, 0 * WALK, 0 * WALK + 0.5, 0.5 + 1e-7 * WALK, 1e-12 * WALK)
    std = deviation(values)
    largest = float((0.2 * WALK).std())
    expected = torch.tensor([largest, largest, 0.5, 0.5, largest])
    torch.testing.assert_close(std, expected, rtol=1e-4, atol=0)
    encoder = VectorEncoder([5], 4)
    encoder.fit(values)
    moved = values[0] + torch.tensor([0.0, 0.01, 0.01, 0.01, 0.01])
    normalised = (moved - encoder.mean) / encoder.std
    assert normalised[1:].abs().max() < 0.1, "that it moves one day must not blow up"
    assert torch.equal(deviation(torch.zeros(9, 2)), torch.ones(2))


@pytest.mark.parametrize("place", [0.0, 0.5, 1000.0])
def test_what_moves_is_told_from_what_does_not_by_what_float32_resolves(place: float) -> None:
    share = max(place, 1e-3) * STILL
    assert deviation(columns(place + 4 * share * WALK, WALK))[0] == pytest.approx(
        4 * share * float(WALK.std()), rel=1e-2
    )
    if place:
        assert deviation(columns(place + share * WALK, WALK))[0] == pytest.approx(place, rel=1e-3)


def test_lengths_are_taken_to_vary_by_a_share_of_the_rest() -> None:
    lengths = columns(0.1 * WALK, 0.003 * WALK, 1e-6 * WALK, 0 * WALK + 0.5)
    std = float((0.1 * WALK).std())
    torch.testing.assert_close(spread(lengths), std * torch.tensor([1, 0.03, LEAST, LEAST]), rtol=1e-4, atol=0)
    assert torch.equal(spread(torch.full((9, 3), 0.5)), torch.ones(3))


def test_a_readout_of_one_number_that_never_moves_stays_where_it_is() -> None:
    """As of a drawer, which slides along one axis of three."""
    z = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    places = columns(0.05 * z[:, 0], 0 * z[:, 0] + 0.5, 0 * z[:, 0] + 0.06)
    read = Readout(6, 3, width=8)
    read.fit(z, places)
    assert read.spread[1:].max() < 0.001
    with torch.no_grad():
        assert (read(z) - places).abs().max() < 0.001


def test_grounding_is_in_units_of_the_recording() -> None:
    known = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)).numpy()
    small, large = Grounding(2, known * 2**-20), Grounding(2, known)
    z = torch.zeros(4, 6, 2)
    assert torch.equal(small(z, torch.from_numpy(known * 2**-20)), large(z, torch.from_numpy(known)))


# Figures


def test_figures_keep_two_digits_however_small() -> None:
    assert [digits(x) for x in (123.4, 12.34, 4.0, 0.5, 0.0344, 0.000123, 0.0)] == [
        *("123.4", "12.3", "4.0", "0.50", "0.034", "0.00012", "0.0")
    ]
    words = Validation(0.1, 9.0, 0.0123, 0.0041, 0.052).words
    assert "sees the position to 0.012 cm; imagining it, 0.0041 cm off, beats 'nothing moves', 0.052 cm" in words
