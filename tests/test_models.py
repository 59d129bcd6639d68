"""Encoders, predictors and the world model, on everything registered; checkpoints that load or say why not."""

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forearm.envs import make
from forearm.evaluation.closed_loop import observe_goals, stack
from forearm.evaluation.controllers import LatentMPC, Learned
from forearm.evaluation.goals import make_goals
from forearm.evaluation.settings import PlannerSettings, PlanningSettings
from forearm.evaluation.timing import Products
from forearm.models.checkpoint import Checkpoint, CheckpointError
from forearm.models.encoders import ENCODERS, VectorEncoder
from forearm.models.metric import slow_metric
from forearm.models.predictor import PREDICTORS, PairLayer
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import PLANNERS
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
SHAPES = {"cnn": [32, 48, 3], "mlp": [7]}
"""An observation's shape for every registered encoder."""


def world_model(*encoders: str, predictor: str = "residual", chunk: int = 2, action_size: int = 5) -> WorldModel:
    """A small model that sees one part of an observation an encoder, with weights as if it were trained."""
    torch.manual_seed(0)
    architecture = Architecture(
        observations={f"part{i}": SHAPES[name] for i, name in enumerate(encoders)},
        encoders={f"part{i}": name for i, name in enumerate(encoders)},
        action_size=action_size,
        chunk=chunk,
        latent=6,
        features=10,
        predictor=predictor,
        predictor_settings={"width": 64, "depth": 1},
        encoder_settings={"part0": {"width": 4}},
    )
    model = WorldModel(architecture).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    return model


def observe(model: WorldModel, batch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        part: torch.randint(256, (batch, *shape), generator=generator, dtype=torch.uint8)
        if len(shape) == 3
        else torch.randn(batch, *shape, generator=generator)
        for part, shape in model.architecture.observations.items()
    }


def test_every_encoder_is_tested() -> None:
    assert SHAPES.keys() == ENCODERS.keys()


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_give_features(name: str) -> None:
    encoder = ENCODERS[name](SHAPES[name], 10).eval()
    parts = observe(world_model(name), 3)["part0"]
    assert encoder(parts).shape == (3, 10)
    torch.testing.assert_close(encoder(parts)[1:2], encoder(parts[1:2]), atol=1e-5, rtol=0)
    assert not torch.equal(encoder(parts)[0], encoder(parts)[1])


def test_pixels_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="40 x 64 do not fit"):
        ENCODERS["cnn"]([40, 64, 3], 10)


def test_vectors_are_normalised_by_what_was_recorded() -> None:
    values = torch.randn(500, 7) * torch.tensor([1, 2, 3, 4, 5, 6, 0.0]) + 9
    encoder = VectorEncoder([7], 10)
    encoder.fit(values)
    x = (values - encoder.mean) / encoder.std
    torch.testing.assert_close(x.std(0)[:6], torch.ones(6))
    assert x.abs().max() < 10  # what never moved in the data is not blown up
    assert encoder(values + 0.001).isfinite().all()


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("encoders", [*[(name,) for name in ENCODERS], tuple(ENCODERS)], ids=str)
@pytest.mark.parametrize("chunk", [1, 3])
def test_world_model(encoders: tuple[str, ...], predictor: str, chunk: int) -> None:
    model = world_model(*encoders, predictor=predictor, chunk=chunk)
    observation = observe(model, 4)
    z = model.encode({**observation, "unseen": torch.zeros(4)})
    actions = torch.rand(4, 5, 4 * chunk, 5) * 2 - 1
    future = model.rollout(z, actions)
    assert z.shape == (4, 6) and future.shape == (4, 5, 4, 6)
    assert z.dtype == future.dtype == torch.float32

    # A rollout is two halves chained.
    half = model.rollout(z, actions[:, :, : 2 * chunk])
    torch.testing.assert_close(half, future[:, :, :2])
    for candidate in range(5):
        rest = model.rollout(half[:, candidate, -1], actions[:, candidate : candidate + 1, 2 * chunk :])
        torch.testing.assert_close(rest[:, 0], future[:, candidate, 2:])

    # The future follows from the past's actions alone, and all of them count.
    changed = actions.clone()
    changed[:, 2, -1] = 0.0
    other = model.rollout(z, changed)
    torch.testing.assert_close(other[:, [0, 1, 3, 4]], future[:, [0, 1, 3, 4]])
    torch.testing.assert_close(other[:, 2, :-1], future[:, 2, :-1])
    assert (other[:, 2, -1] - future[:, 2, -1]).abs().max() > 1e-4

    # A problem among others is the problem alone.
    for b in range(4):
        alone = model.encode({part: value[b : b + 1] for part, value in observation.items()})
        torch.testing.assert_close(alone, z[b : b + 1], atol=1e-5, rtol=0)
        torch.testing.assert_close(model.rollout(alone, actions[b : b + 1]), future[b : b + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_before_training_nothing_moves(predictor: str) -> None:
    model = WorldModel(Architecture({"state": [7]}, {"state": "mlp"}, action_size=5, predictor=predictor))
    z = torch.randn(2, 64)
    torch.testing.assert_close(model.rollout(z, torch.ones(2, 3, 4, 5))[:, 2, -1], z)


def test_a_layer_for_two_tokens_is_a_transformers() -> None:
    ours, known = (
        PairLayer(128),
        nn.TransformerEncoderLayer(128, 2, 512, dropout=0.0, activation="gelu", batch_first=True, norm_first=True),
    )
    names = {
        "attention_norm": "norm1", "norm": "norm2", "join": "self_attn.out_proj", "expand": "linear1",
        "contract": "linear2",
    }  # fmt: skip
    nn.init.normal_(known.self_attn.in_proj_bias)  # zero by default
    weights = known.state_dict()
    renamed = {f"{our}.{kind}": weights[f"{its}.{kind}"] for our, its in names.items() for kind in ("weight", "bias")}
    renamed |= {f"attend.{kind}": weights[f"self_attn.in_proj_{kind}"] for kind in ("weight", "bias")}
    ours.load_state_dict(renamed)
    tokens = 3 * torch.randn(7, 2, 128)
    expected = known(tokens)
    torch.testing.assert_close(ours(tokens), expected)
    torch.testing.assert_close(ours(tokens, read=1), expected[:, :1])


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_products_in_bfloat16_are_autocasts_and_leave_the_weights_alone(predictor: str) -> None:
    model = world_model("mlp", predictor=predictor)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    z, actions = torch.randn(2, 6), torch.randn(2, 3, 4, 5)
    exact = model.rollout(z, actions)
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.rollout(z, actions)
    narrow = model.in_precision("bf16").rollout(z, actions)
    assert torch.equal(narrow, cast) and not torch.equal(narrow, exact) and narrow.dtype == torch.float32
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(model.rollout(z, actions), exact)


@pytest.mark.parametrize(("samples", "iterations"), [(2, 1), (40, 4)])
@pytest.mark.parametrize("name", ["cem", "mppi", "gradient"])
def test_observation_and_goal_are_encoded_once_a_plan(
    name: str, samples: int, iterations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make("reach", pixels=False)
    manifest = make_goals(env, 2, seed=0)
    model = WorldModel(Architecture({"state": [9]}, {"state": "mlp"}, action_size=5)).eval()
    planner = PlannerSettings(search=PLANNERS[name](samples=samples, iterations=iterations), horizon=3)
    controller = LatentMPC(env, Learned(model), PlanningSettings(planner=planner, execute_steps=2))
    encode, batches = model.encode, []

    def counted(observation: dict[str, Tensor]) -> Tensor:
        batches.append(len(observation["state"]))
        return encode(observation)

    monkeypatch.setattr(controller.model, "encode", counted)
    controller.begin(manifest, observe_goals(env, manifest), seed=0)
    assert batches == [2]
    for plans in (1, 2, 3):
        actions = controller.act(stack([env.observe()] * 2), manifest.start)
        assert actions.shape == (2, 2, 5) and np.abs(actions).max() <= 1
        assert batches == [2] * (1 + plans)


# Checkpoints


def saved(folder: Path) -> Checkpoint:
    model = world_model("mlp", "cnn")
    checkpoint = Checkpoint(model, "push", {"size": 64}, "pixels", (-1.0,) * 5, (1.0,) * 5, {"steps": 3})
    checkpoint.save(folder)
    return checkpoint


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path / "new" / "folder")
    loaded = Checkpoint.load(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["config.json", "model.safetensors"]
    assert loaded.model.architecture == checkpoint.model.architecture
    for key in ("env", "env_config", "obs", "action_low", "action_high", "about"):
        assert getattr(loaded, key) == getattr(checkpoint, key)
    weights = checkpoint.model.state_dict()
    assert loaded.model.state_dict().keys() == weights.keys()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert not loaded.model.training
    observation = observe(loaded.model, 2)
    assert torch.equal(loaded.model.encode(observation), checkpoint.model.encode(observation))


def test_a_checkpoint_loads_without_hydra(tmp_path: Path) -> None:
    saved(tmp_path)
    code = (
        "import sys; from pathlib import Path; from forearm.models.checkpoint import Checkpoint\n"
        "Checkpoint.load(Path(sys.argv[1]))\n"
        "print([name for name in ('hydra', 'omegaconf', 'mujoco') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def edit(**change: Any) -> Callable[[Path], Any]:
    def change_config(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **change}))

    return change_config


def edit_architecture(**change: Any) -> Callable[[Path], Any]:
    def change_architecture(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        edit(architecture={**config["architecture"], **change})(folder)

    return change_architecture


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (shutil.rmtree, r"no config\.json there"),
    "no config": (lambda f: (f / "config.json").unlink(), r"no config\.json there"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: cannot be loaded"),
    "truncated weights": (lambda f: os.truncate(f / "model.safetensors", 999), r"model\.safetensors: cannot be loaded"),
    "empty weights": (lambda f: os.truncate(f / "model.safetensors", 0), r"model\.safetensors: cannot be loaded"),
    "other weights": (edit_architecture(latent=7), r"model\.safetensors: cannot be loaded .*project"),
    "not JSON": (lambda f: os.truncate(f / "config.json", 100), r"config\.json: not a checkpoint's"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), r"config\.json: not a checkpoint's"),
    "not a dict": (lambda f: (f / "config.json").write_text("[1]"), r"config\.json: not a checkpoint's"),
    "key missing": (lambda f: (f / "config.json").write_text('{"format": 1}'), r"config\.json: .*'architecture'"),
    "foreign key": (edit_architecture(target="os.system"), r"config\.json: .*'target'"),
    "other format": (edit(format=99), r"config\.json: format=99; this version reads 1"),
    "unknown encoder": (edit_architecture(encoders={"part0": "vit"}), r"config\.json: .*'vit'.*knows: cnn, mlp"),
    "unknown predictor": (edit_architecture(predictor="os.system"), r"config\.json: .*'os\.system'.*knows: residual"),
    "impossible shape": (edit_architecture(observations={"part0": [7], "part1": [1, 2]}), r"config\.json: not a ch"),
    "impossible size": (edit_architecture(latent=-1), r"config\.json: not a checkpoint's"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_says_what_is_wrong(tmp_path: Path, kind: str) -> None:
    saved(tmp_path / "checkpoint")
    damage, message = DAMAGE[kind]
    damage(tmp_path / "checkpoint")
    with pytest.raises(CheckpointError, match=f"checkpoint.*{message}"):
        Checkpoint.load(tmp_path / "checkpoint")


def test_a_checkpoint_for_something_else_is_refused(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path)
    checkpoint.require("push", "pixels")
    checkpoint.require("push", "pixels", chunk=2)
    for wanted, message in {
        ("reach", "pixels", None): "env=reach: .* env=push",
        ("push", "state", None): "obs=state: .* obs=pixels",
        ("push", "pixels", 3): r"model\.chunk=3: .* model\.chunk=2",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            checkpoint.require(*wanted)


FORBIDDEN = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "torch.load", "torch.save"}
FORBIDDEN |= {"hydra.utils", "instantiate", "eval", "exec", "np.load", "numpy.load"}


def test_nothing_from_a_file_is_ever_executed() -> None:
    sources = [p for p in ROOT.rglob("*.py") if p.relative_to(ROOT).parts[0] not in (".venv", "tests", "build")]
    assert len(sources) > 40
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
                names += [alias.name for alias in node.names]
            elif isinstance(node, ast.Call | ast.Attribute):
                names = [ast.unparse(node.func if isinstance(node, ast.Call) else node)]
            assert not FORBIDDEN & set(names), f"{path}:{getattr(node, 'lineno', 0)}: {names}"


def test_slow_metric_weighs_directions_by_how_slowly_they_change() -> None:
    generator = torch.Generator().manual_seed(0)
    slow = torch.randn(500, 1, 1, generator=generator).expand(500, 5, 1)  # differs between windows, rarely within
    z = torch.cat(
        [slow + 0.1 * torch.randn(500, 5, 1, generator=generator), torch.randn(500, 5, 1, generator=generator)], -1
    )
    rotation = torch.linalg.qr(torch.randn(2, 2, generator=generator)).Q
    mapped = (z @ rotation) @ slow_metric(z @ rotation, ridge=1e-6)
    change = mapped.diff(dim=1).flatten(0, 1)
    assert torch.allclose(change.T @ change / len(change) / change.square().mean(), torch.eye(2), atol=1e-3)
    assert mapped.flatten(0, 1).var(0).mean().item() == pytest.approx(1.0, abs=1e-3)
    # Between windows the slow direction now rules: there, 1 unit apart in it is 10 times as far as in the other.
    one = torch.eye(2) @ rotation @ slow_metric(z @ rotation, ridge=1e-6)
    assert (one[0].norm() / one[1].norm()).item() == pytest.approx(10.0, rel=0.1)


@pytest.mark.parametrize(("predictor", "count"), [("residual", 5), ("transformer", 7)])
def test_a_models_matrix_products_are_all_found(predictor: str, count: int) -> None:
    """Two embeddings, two of a block or four of a layer, and the change."""
    model = world_model("mlp", predictor=predictor)
    with Products() as products:
        model.rollout(torch.randn(1, 6), torch.randn(1, 3, 2, 5))
    assert len(products.calls) == count
    assert all(product().isfinite().all() for product in products.calls)
