"""A small sweep that trains in a second, shared by the tests of sweeps."""

from gradwire.analysis.sweep.grid import make_grid

BASE = {
    "schemes": ["dense(dtype=fp32)", "dense(dtype=bf16)", "ef(topk)", "qsgd(bits=4)"],
    "task": {"name": "logistic"},
    "training": {
        "workers": 4,
        "batch_size": 8,
        "steps": 30,
        "evaluate_every": 5,
        "learning_rate": 1.0,
        "target": 0.9,
    },
    "cluster": {"preset": "ethernet-1g"},
}
AXES = {
    "density": [0.1, 0.4],
    "cost": [0, 1, 30],
    "bandwidth": ["1 Mbit/s", "100 Mbit/s", "10 Gbit/s"],
    "latency": ["5 us", "500 us"],
    "seed": [0, 1],
}


def grid(axes=None, **sections):
    """Return the small grid, with other axes or some keys of its sections changed."""
    data = {**BASE}
    for name, changes in sections.items():
        data[name] = {**BASE.get(name, {}), **changes} if isinstance(changes, dict) else changes
    return make_grid(data, AXES if axes is None else axes)
