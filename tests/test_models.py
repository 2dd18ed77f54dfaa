"""Listed models: the shapes of the libraries that define them, and times from published figures."""

import json
import math
from pathlib import Path

import pytest

from gradwire.compressors.errors import InputError
from gradwire.sim.models import MODELS, load_model, model_workload
from gradwire.sim.models.times import backward_traces, published_steps
from gradwire.sim.step.device import load_device

GOLDEN = json.loads((Path(__file__).parent / "data" / "model_shapes.json").read_text())
V100 = load_device("v100")


@pytest.mark.parametrize("name", GOLDEN["models"])
def test_names_and_shapes_are_the_librarys(name):
    """Parameters of torchvision 0.28 and transformers 5.23 in the order of ``named_parameters``."""
    assert [[name, list(shape)] for name, shape in MODELS[name].parameters()] == GOLDEN["models"][name]


def test_every_model_but_the_lstm_is_held_to_a_library():
    assert set(MODELS) - set(GOLDEN["models"]) == {"lstm"}


def test_lstm_has_the_tensors_of_the_published_trace():
    """Two LSTM layers of 1500 and a tied embedding of WikiText-2's words: 85,974,278 values in 10 tensors."""
    sizes = {name: math.prod(shape) for name, shape in MODELS["lstm"].parameters()}
    gates = {f"rnns.{i}.{kind}_l0": n for i in (0, 1) for kind, n in _GATES.items()}
    assert sizes == {"encoder.weight": 33_278 * 1500, "decoder.bias": 33_278, **gates}
    assert sum(sizes.values()) == 85_974_278


_GATES = {"weight_ih": 9_000_000, "weight_hh": 9_000_000, "bias_ih": 6000, "bias_hh": 6000}


@pytest.mark.parametrize(
    ("name", "gflops"),
    [("resnet18", 1.81), ("resnet50", 4.09), ("resnet101", 7.80), ("vgg11", 7.61), ("vgg16", 15.47)],
)
def test_arithmetic_of_one_image(name, gflops):
    """Multiply-adds of a forward pass as torchvision lists them (GFLOPS of its weights' table)."""
    from torch.utils.flop_counter import FlopCounterMode

    model = MODELS[name]
    module = model.module()
    with FlopCounterMode(display=False) as counter:
        model.run(module, 1)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gflops, rel=0.01)


@pytest.mark.parametrize("name", MODELS)
def test_published_and_analytic_times_cover_every_parameter(name):
    model = MODELS[name]
    workload = model_workload(model, V100, model.batch)
    assert sum(layer.elements for layer in workload.layers) == sum(math.prod(s) for _, s in model.parameters())
    assert {p for layer in workload.layers for p in layer.parameters} == {n for n, _ in model.parameters()}


@pytest.mark.parametrize(
    ("name", "step"), [(name, step) for name, steps in published_steps().items() for step in steps]
)
def test_published_steps_are_met_exactly(name, step):
    """At the batch that was measured, the parts add up to what was measured."""
    workload = model_workload(MODELS[name], load_device(step.device), step.batch)
    assert step.source in workload.source
    if step.step is not None:
        assert workload.forward_s + workload.backward_s + workload.optimizer_s == pytest.approx(step.step, rel=1e-12)
        assert workload.backward_s == pytest.approx(2 * workload.forward_s, rel=1e-12)
    else:
        assert (workload.forward_s, workload.backward_s) == pytest.approx((step.forward, step.backward), rel=1e-12)


def test_another_batch_is_scaled_from_the_nearest_and_says_so():
    less = model_workload(MODELS["resnet50"], V100, 100)
    whole = model_workload(MODELS["resnet50"], V100, 128)
    assert less.backward_s == pytest.approx(whole.backward_s * 100 / 128, rel=1e-12)
    assert "measured at a batch of 128, scaled in proportion" in less.source


def test_the_backward_pass_is_spread_as_it_was_traced():
    trace = backward_traces()["resnet50"]
    workload = model_workload(MODELS["resnet50"], V100, 32)
    share = {layer.name: layer.backward_s / workload.backward_s for layer in workload.layers}
    assert share == pytest.approx({name: us / sum(trace.values()) for name, us in trace.items()}, rel=1e-9)
    assert "Espresso" in workload.source


def test_what_was_not_published_is_estimated_or_refused():
    model = MODELS["vgg11"]
    assert model_workload(model, V100, 32) == model_workload(model, V100, 32, "analytic")
    with pytest.raises(InputError, match="nothing is published for vgg11 on v100; devices with figures: none"):
        model_workload(model, V100, 32, "published")
    with pytest.raises(InputError, match="nothing is published for resnet50 on a100; devices with figures: v100"):
        model_workload(MODELS["resnet50"], load_device("a100"), 32, "published")


def test_unknown_models_are_refused_with_the_nearest_names():
    with pytest.raises(InputError, match="model 'resnet5' is unknown; did you mean resnet50"):
        load_model("resnet5")


@pytest.mark.parametrize("name", ["resnet50", "resnet101"])
def test_the_roofline_comes_near_what_was_measured(name):
    """Not fitted to these: batch 32 on a V100 (the efficiency is fitted to ResNet-50 at 128)."""
    estimate = model_workload(MODELS[name], V100, 32, "analytic")
    measured = next(step.step for step in published_steps()[name] if step.batch == 32)
    assert estimate.forward_s + estimate.backward_s + estimate.optimizer_s == pytest.approx(measured, rel=0.10)
