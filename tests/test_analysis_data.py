"""A synthetic run, as the simulation would hand it over, and a check that it is one."""

import numpy as np
import pytest
import xarray as xr

WORKERS, STEPS, EVERY = 8, 200, 20
DENSE, BF16, TOPK = "dense(dtype=fp32)", "dense(dtype=bf16)", "ef(topk(density=0.01))"
PHASES = ("forward_s", "backward_s", "encode_s", "decode_s", "optimizer_s", "exposed_communication_s")
UNITS = {"bytes": "B", "_s": "s", "rate": "1", "loss": "1", "metric": "1"}


def scheme(
    exposed_s=0.08,
    codec_s=0.0,
    sent_bytes=4e6,
    rate=0.05,
    top=0.95,
    test_shift=-0.01,
    diverged=None,
    cost_source="published (V100)",
):
    """Describe one scheme: seconds and bytes of a step, and how its accuracy rises towards ``top``."""
    return dict(locals())


def synthetic(schemes, target=0.9, steps=STEPS, every=EVERY, seed=0, **attributes):
    """Return a run of schemes ``{text: scheme(...)}``; ``diverged`` is the number of completed steps."""
    noise = np.random.default_rng(seed)
    parts = [_one(one, steps, every, noise) for one in schemes.values()]
    coordinates = {
        "scheme": list(schemes),
        "step": np.arange(1, steps + 1),
        "evaluation": np.arange(steps // every + 1),
        "evaluated_step": ("evaluation", np.arange(0, steps + 1, every)),
    }
    dims = {steps: ("scheme", "step"), steps // every + 1: ("scheme", "evaluation")}
    variables = {}
    for name in parts[0]:
        values = np.stack([part[name] for part in parts])
        unit = next(unit for ending, unit in UNITS.items() if name.endswith(ending))
        variables[name] = (dims[values.shape[1]], values, {"units": unit, "long_name": name.replace("_", " ")})
    done = [steps if one["diverged"] is None else one["diverged"] for one in schemes.values()]
    status = ["completed" if n == steps else f"diverged at step {n + 1}: loss is nan" for n in done]
    variables["completed_steps"] = ("scheme", np.array(done))
    variables["status"] = ("scheme", status)
    variables["cost_source"] = ("scheme", [one["cost_source"] for one in schemes.values()])
    attrs = {
        "metric": "accuracy",
        "higher_is_better": 1,
        "workers": WORKERS,
        "cluster": "ethernet-10g",
        "device": "V100",
        "task": "mnist",
        "experiment": '[task]\nname = "mnist"  # <the> task & more\n',
        "gradwire": "0.1.0",
        "torch": "2.9.0",
        "parameters": 1_000_000,
    }
    attrs |= {} if target is None else {"target": target}
    return xr.Dataset(variables, coordinates, attrs | attributes)


def _one(one, steps, every, noise):
    """Return the arrays of one scheme."""
    step = np.arange(1, steps + 1)
    evaluated = np.arange(0, steps + 1, every)
    values = {"train_loss": 2.3 * np.exp(-one["rate"] * step) + 0.05 + 0.02 * noise.random(steps)}
    values["learning_rate"] = np.full(steps, 0.1)
    seconds = (0.004, 0.008, 0.75 * one["codec_s"], 0.25 * one["codec_s"], 0.002, one["exposed_s"])
    values |= {name: np.full(steps, value) for name, value in zip(PHASES, seconds, strict=True)}
    values["step_s"] = sum(values[name] for name in PHASES)
    values["communication_s"] = values["exposed_communication_s"] + 0.003
    values["end_s"] = np.cumsum(values["step_s"])
    values["sent_bytes"] = np.full(steps, float(one["sent_bytes"]))
    metric = one["top"] - (one["top"] - 0.1) * np.exp(-one["rate"] * evaluated)
    loss = 2.3 * np.exp(-one["rate"] * evaluated) + 0.1
    values |= {"validation_loss": loss, "validation_metric": metric}
    values |= {"test_loss": loss + 0.01, "test_metric": metric + one["test_shift"]}
    values["evaluation_s"] = np.concatenate([[0.0], values["end_s"]])[evaluated]
    if one["diverged"] is not None:
        for array in values.values():
            positions = step if len(array) == steps else evaluated
            array[positions > one["diverged"]] = np.nan
    return values


def test_phases_of_the_synthetic_run_add_up_to_its_steps():
    run = synthetic({DENSE: scheme(), TOPK: scheme(exposed_s=0.001, codec_s=0.002)})
    np.testing.assert_allclose(sum(run[name] for name in PHASES), run["step_s"])
    np.testing.assert_allclose(run["evaluation_s"][:, 1:], run["end_s"][:, EVERY - 1 :: EVERY])
    assert float(run["step_s"][1, 0]) == pytest.approx(0.017)
