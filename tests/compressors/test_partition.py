"""Units and messages by hand, against torch's own buckets, and as a cover of all parameters."""

from itertools import pairwise
from math import prod

import pytest
import torch
import torch.distributed as dist
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradwire.compressors.base import SchemeError
from gradwire.compressors.partition import BUCKET_BYTES, FIRST_BUCKET_BYTES, Partition, Unit, partition

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

MODEL = [("embed", (10, 4)), ("fc.weight", (6, 4)), ("fc.bias", (6,)), ("scale", ())]
"""40 + 24 + 6 + 1 values; reversed, with buckets closed at 8, then at 20 values: scale fc.bias fc.weight | embed."""
SMALL = {"bucket_bytes": 80, "first_bucket_bytes": 32}


def names(cut: Partition) -> list[list[str]]:
    return [[unit.name for unit in message] for message in cut.messages]


def places(cut: Partition) -> list[list[tuple[int, int]]]:
    return [[(unit.start, unit.stop) for unit in message] for message in cut.messages]


def test_flat_order_is_the_reverse_of_the_definition():
    cut = partition(MODEL)
    assert [(p.name, p.shape, p.start, p.stop) for p in cut.parameters] == [
        ("scale", (), 0, 1),
        ("fc.bias", (6,), 1, 7),
        ("fc.weight", (6, 4), 7, 31),
        ("embed", (10, 4), 31, 71),
    ]
    assert cut.elements == 71


WHOLE = "scale+fc.bias+fc.weight+embed"
FIRST = "scale+fc.bias+fc.weight"


@pytest.mark.parametrize(
    ("unit", "message", "expected"),
    [
        ("layer", "layer", [["scale"], ["fc.bias"], ["fc.weight"], ["embed"]]),
        ("layer", "bucket", [["scale", "fc.bias", "fc.weight"], ["embed"]]),
        ("layer", "model", [["scale", "fc.bias", "fc.weight", "embed"]]),
        ("bucket", "bucket", [[FIRST], ["embed"]]),
        ("bucket", "model", [[FIRST, "embed"]]),
        ("model", "model", [[WHOLE]]),
    ],
)
def test_all_ways_of_nesting(unit, message, expected):
    assert names(partition(MODEL, unit, message, **SMALL)) == expected


@pytest.mark.parametrize(("unit", "message"), [("bucket", "layer"), ("model", "bucket"), ("model", "layer")])
def test_a_unit_must_lie_within_a_message(unit, message):
    with pytest.raises(SchemeError, match=rf"^unit = '{unit}' is larger than message = '{message}': "):
        partition(MODEL, unit, message)


def test_a_model_without_parameters_is_refused():
    with pytest.raises(SchemeError, match="no parameters"):
        partition([])


def test_shapes_of_units():
    layers = [unit for message in partition(MODEL, "layer", "layer").messages for unit in message]
    assert [unit.shape for unit in layers] == [(1,), (6,), (6, 4), (10, 4)]
    ((first,), (second,)) = partition(MODEL, "bucket", "bucket", **SMALL).messages
    assert first.shape == (31,)
    assert second.shape == (10, 4)  # a lone parameter keeps its shape
    assert partition(MODEL, "model", "model").messages[0][0].shape == (71,)


def test_a_bucket_closes_as_soon_as_it_reaches_its_limit():
    """Values of 4 bytes: limits of 8 and of 12 bytes are 2 and 3 values, reached exactly or exceeded."""
    model = [("e", (7,)), ("d", (1,)), ("c", (2,)), ("b", (1,)), ("a", (1,))]
    cut = partition(model, "bucket", "bucket", bucket_bytes=12, first_bucket_bytes=8)
    assert names(cut) == [["a+b"], ["c+d"], ["e"]]
    assert places(cut) == [[(0, 2)], [(2, 5)], [(5, 12)]]
    wide = partition(model, "bucket", "bucket", bucket_bytes=12, first_bucket_bytes=8, itemsize=8)
    assert names(wide) == [["a"], ["b+c"], ["d+e"]]


def test_the_last_bucket_may_stay_below_its_limit():
    cut = partition([("b", (3,)), ("a", (100,))], "bucket", "bucket", bucket_bytes=100, first_bucket_bytes=100)
    assert names(cut) == [["a"], ["b"]]


def test_limits_are_those_of_torch():
    assert dist._DEFAULT_FIRST_BUCKET_BYTES == FIRST_BUCKET_BYTES
    assert BUCKET_BYTES == 25 * 1024 * 1024  # the default of DistributedDataParallel's bucket_cap_mb


shapes = st.lists(st.integers(1, 9), max_size=3).map(tuple)
models = st.lists(shapes, min_size=1, max_size=30).map(
    lambda found: [(f"p{i}", shape) for i, shape in enumerate(found)]
)


@given(
    model=models,
    first=st.integers(1, 900),
    cap=st.integers(1, 3000),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16]),
)
@PATIENT
def test_buckets_are_those_that_torch_rebuilds(model, first, cap, dtype):
    """DistributedDataParallel lists parameters in the order of the first backward pass, the reverse of the definition,
    and cuts that list with the limits [first bucket, cap].
    """
    reverse = [torch.empty(shape, dtype=dtype) for _, shape in reversed(model)]
    expected, _ = dist._compute_bucket_assignment_by_size(reverse, [first, cap], [False] * len(reverse))
    cut = partition(model, "bucket", "bucket", bucket_bytes=cap, first_bucket_bytes=first, itemsize=dtype.itemsize)
    order = {name: place for place, (name, _) in enumerate(reversed(model))}
    assert [[order[p.name] for p in unit.parameters] for (unit,) in cut.messages] == expected


@given(
    model=models,
    ways=st.sampled_from(
        [
            ("layer", "layer"),
            ("layer", "bucket"),
            ("layer", "model"),
            ("bucket", "bucket"),
            ("bucket", "model"),
            ("model", "model"),
        ]
    ),
    limit=st.integers(1, 2000),
)
@PATIENT
def test_units_tile_the_flat_vector_in_order(model, ways, limit):
    cut = partition(model, *ways, bucket_bytes=limit, first_bucket_bytes=max(1, limit // 4))
    units: list[Unit] = [unit for message in cut.messages for unit in message]
    assert all(message for message in cut.messages)
    assert units[0].start == 0
    assert all(one.stop == other.start for one, other in pairwise(units))
    assert units[-1].stop == cut.elements == sum(prod(shape) for _, shape in model)
    assert [p for unit in units for p in unit.parameters] == list(cut.parameters)
    assert [p.name for p in cut.parameters] == [name for name, _ in reversed(model)]
    assert all(prod(unit.shape) == unit.stop - unit.start for unit in units)
    assert len({unit.name for unit in units}) == len(units)
