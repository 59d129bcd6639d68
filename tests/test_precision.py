"""Products of 8-bit integers: exact where integers are, within their rounding elsewhere, each row by itself."""

import shutil

import pytest
import torch
from forearm.envs import make
from forearm.errors import UserError
from forearm.evaluation.controllers import LatentMPC, Learned
from forearm.evaluation.settings import PlannerSettings, PlanningSettings, action_space
from forearm.models import precision
from forearm.models.precision import QUANTISED, WIDE, Int8Linear, cpu_has_int8, quantised, rollout_precision
from forearm.models.predictor import PREDICTORS
from forearm.models.prior import ActionPrior, PriorArchitecture
from forearm.models.world_model import Architecture, WorldModel
from forearm.planner import CEM, PLANNERS, LatentEnergy, make_planner
from torch import nn

needs_int8 = pytest.mark.skipif(not cpu_has_int8(), reason="no VNNI")


def world_model(predictor: str, width: int = 128) -> WorldModel:
    """Small, but wide enough for 8-bit integers, with weights as if it were trained."""
    torch.manual_seed(0)
    architecture = Architecture(
        {"state": [3]}, {"state": "mlp"}, 5, 2, QUANTISED, 8, predictor, {"width": width, "depth": 2}
    )
    model = WorldModel(architecture).eval().requires_grad_(False)
    model.predictor.get_submodule("change").weight.normal_(std=0.1)  # pyright: ignore[reportCallIssue]
    return model


def test_a_precision_is_had_where_the_machine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rollout_precision("fp32", "cuda") == "fp32" and rollout_precision("auto", "cuda") == "bf16"
    with pytest.raises(UserError, match="precision=fp8 is unknown; choose one of: auto, bf16, fp32, int8"):
        rollout_precision("fp8", "cpu")
    with pytest.raises(UserError, match="precision=int8 on cuda: it is for CPUs; choose one of: auto, bf16, fp32"):
        rollout_precision("int8", "cuda")
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: {"avx_vnni": has})
        if has:
            assert rollout_precision("int8", "cpu") == "int8"
        else:
            with pytest.raises(UserError, match="this CPU has no instructions for it"):
                rollout_precision("int8", "cpu")


@pytest.mark.parametrize("width, chosen", [(WIDE // 2, "fp32"), (WIDE, "bf16")])
def test_bfloat16_is_for_models_wide_enough_to_gain(width: int, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    model = world_model("residual", width)
    assert model.width == width
    planning = PlanningSettings(planner=PlannerSettings(search=CEM(samples=4, iterations=1)), precision="auto")
    controller = LatentMPC(make("reach", pixels=False), Learned(model), planning)
    assert controller.model.precision == chosen


@needs_int8
@pytest.mark.parametrize("bias", [True, False])
def test_integers_are_multiplied_exactly(bias: bool) -> None:
    layer = nn.Linear(600, 70, bias=bias).requires_grad_(False)
    for parameter in layer.parameters():
        parameter.random_(-127, 128)
    x = torch.empty(2, 9, 600).random_(-127, 128)
    layer.weight[:, 0] = x[..., 1] = 127.0  # the largest there is: scales are 1
    assert torch.equal(Int8Linear(layer)(x), layer(x))


@needs_int8
def test_a_product_is_off_by_no_more_than_its_factors_were_rounded() -> None:
    layer = nn.Linear(256, 128).requires_grad_(False)
    x = torch.randn(64, 256) * torch.logspace(-3, 3, 64)[:, None]
    w = layer.weight
    step_x, step_w = x.abs().amax(1, keepdim=True) / 127, w.abs().amax(1, keepdim=True) / 127
    bound = (x.abs() + step_x / 2) @ (step_w / 2).expand_as(w).T + (step_x / 2).expand_as(x) @ w.abs().T
    error = (Int8Linear(layer)(x) - layer(x)).abs()
    assert bool((error <= 1.001 * bound).all()) and 0 < error.median() < 0.1 * bound.median()


@needs_int8
def test_rows_know_nothing_of_each_other_and_nothing_finite_comes_of_nan() -> None:
    layer = Int8Linear(nn.Linear(QUANTISED, 16))
    x = torch.randn(5, QUANTISED)
    x[1], x[2, 0], x[3, 0] = 0.0, torch.nan, torch.inf
    y = layer(x)
    assert all(torch.equal(layer(x[i : i + 1]), y[i : i + 1]) for i in (0, 1, 4))
    assert torch.equal(y[1], layer.bias) and not y[2:4].isfinite().any()


@needs_int8
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_rollouts_in_integers_are_near_the_exact_ones_and_leave_the_weights_alone(predictor: str) -> None:
    model = world_model(predictor)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    z, actions = torch.randn(2, QUANTISED), torch.rand(2, 3, 8, 5)
    exact = model.rollout(z, actions)
    whole = model.in_precision("int8")
    rough = whole.rollout(z, actions)
    assert sum(isinstance(part, Int8Linear) for part in whole.modules()) >= 5
    moved, off = (x.square().mean().sqrt() for x in (exact - z[:, None, None], rough - exact))
    assert 0 < off < 0.05 * moved and rough.dtype == torch.float32
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(model.rollout(z, actions), exact)


@needs_int8
def test_a_prior_in_integers_offers_nearly_the_same() -> None:
    torch.manual_seed(0)
    prior = ActionPrior(PriorArchitecture(latent=8, goal=3, action_size=5, width=128)).requires_grad_(False)
    given = torch.randn(4, 8), torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, 6, 5)
    exact = prior.sample(*given)
    torch.testing.assert_close(prior.in_precision("int8").sample(*given), exact, atol=0.05, rtol=0)


@needs_int8
def test_what_descends_gradients_is_not_run_in_integers() -> None:
    env = make("reach", pixels=False)
    for name in ("gradient", "cem_gradient"):
        planner = PlannerSettings(search=PLANNERS[name](samples=8))
        with pytest.raises(
            UserError, match=r"precision=int8: \w*Gradient\w* descends gradients, and there are none; cho"
        ):
            LatentMPC(env, Learned(world_model("residual")), PlanningSettings(planner=planner, precision="int8"))
    env.close()


@needs_int8
@pytest.mark.skipif(not shutil.which("g++"), reason="no g++")
@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own
def test_a_search_in_integers_compiles_with_kernels() -> None:
    model = world_model("residual").in_precision("int8")
    z, goal = torch.randn(2, 1, QUANTISED)
    energy = LatentEnergy(model, z, goal)
    space = action_space([-1.0] * 5, [1.0] * 5, 2, 2)
    planner = make_planner("cem", space, samples=12, iterations=2, backend="inductor")
    plans = [planner.plan(energy, planner.init(1, seed)) for seed in range(2)]
    assert [plan.stats.compiled for plan in plans] == [False, True]
    torch.testing.assert_close(plans[1].energy, energy(plans[1].actions[:, None])[:, 0], rtol=1e-3, atol=0)


def test_only_the_larger_layers_are_quantised() -> None:
    large = nn.Linear(QUANTISED, 3)
    layers = nn.Sequential(nn.Linear(QUANTISED - 1, QUANTISED), nn.Sequential(nn.SiLU(), large))
    found = [type(part).__name__ for part in quantised(layers).modules() if not isinstance(part, nn.Sequential)]
    assert found == ["Linear", "SiLU", "Int8Linear"]
    assert type(quantised(large)) is Int8Linear and type(large) is nn.Linear
