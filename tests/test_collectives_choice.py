"""The choice of an algorithm: NCCL's tuning model, by numbers worked out by hand from its source."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwire.compressors.errors import InputError
from gradwire.sim.network import ALGORITHMS, Machine, choose
from gradwire.sim.network.tuning import estimates

HUNDRED_GBIT = Machine(100e9)
NVLINK_HOSTS = Machine(100e9, nvlink=True)


def times_us(size, workers, hosts, machine):
    return {(e.algorithm, e.protocol): 1e6 * e.seconds for e in estimates(size, workers, hosts, machine)}


def test_one_mebibyte_on_eight_hosts_by_hand():
    """14 steps, of which NCCL counts 16 between hosts; 12.5 GB/s; the third column of the tables."""
    payload = 2**20 / 1000  # bytes a microsecond at 1 GB/s
    assert times_us(2**20, 8, 8, HUNDRED_GBIT) == pytest.approx(
        {
            ("ring", "LL"): 6.6 - 2 * 1.0 + 16 * 2.7 + payload / (12.5 / 4 * 8 / 14),
            ("ring", "LL128"): 14.0 - 2 * 2.5 + 16 * 4.0 + payload / (12.5 * 0.7 * 8 / 14),
            ("ring", "Simple"): 1.4 * (8.4 - 2 * 5.7 + 16 * 14.0) + payload / (12.5 * 8 / 14),
            ("tree", "LL"): 6.8 + 2 * 3 * 5.0 + payload / (0.92 * 12.5 / 3.8 / 2 * 0.5),
            ("tree", "LL128"): 14.0 + 2 * 3 * 8.5 + payload / (0.92 * 12.5 * 120 / 128 / 2 * 0.6),
            ("tree", "Simple"): 2 * 3 * 28.0 + payload / (0.92 * 12.5 / 2 * 0.5),
        }
    )
    choice = choose("all-reduce", 2**20, 8, 8, HUNDRED_GBIT)
    assert choice.algorithm == "ring"
    assert choice.reason == (
        "NCCL 2.18 estimates ring/LL128 282.7 us, tree/LL128 389.2 us, for 1048576 bytes on 8 workers of 8 hosts, "
        "assuming ampere GPUs and 2 channels"
    )


def test_one_host_by_hand():
    """No network: 14 steps over NVLink, 150 GB/s; in the tree a chain of 7 links, there and back."""
    machine = Machine(1200e9, nvlink=True, channels=12)
    times = times_us(64 * 2**20, 8, 1, machine)
    payload = 64 * 2**20 / 1000
    assert times["ring", "Simple"] == pytest.approx(8.4 + 14 * 3.4 + payload / (150 * 8 / 14))
    assert times["ring", "LL"] == pytest.approx(6.6 + 14 * 0.6 + payload / (150 / 4 * 8 / 14))
    assert times["tree", "LL128"] == pytest.approx(
        14.0 + 2 * 7 * 1.25 + payload / (0.92 * 150 * 7 / 9 / 2 * 0.9)  # 2^20 times 64 bytes: the 21st entry
    )


def test_ll128_needs_nvlink_between_gpus_of_a_host():
    assert ("ring", "LL128") not in times_us(2**20, 8, 2, HUNDRED_GBIT)
    assert ("ring", "LL128") in times_us(2**20, 8, 2, NVLINK_HOSTS)


def test_volta_pays_more_for_the_rings_plateau():
    ampere = times_us(2**20, 8, 8, HUNDRED_GBIT)["ring", "Simple"]
    volta = times_us(2**20, 8, 8, Machine(100e9, generation="volta"))["ring", "Simple"]
    assert volta - ampere == pytest.approx(0.5 * (8.4 - 2 * 5.7 + 16 * 14.0))
    few_bytes = times_us(2 * 8 * 64 - 1, 8, 8, Machine(100e9))["ring", "Simple"]
    assert few_bytes == pytest.approx(8.4 - 2 * 5.7 + 16 * 14.0 + 1.023 / (12.5 * 8 / 14))


def test_small_messages_of_many_hosts_take_the_tree_and_large_ones_the_ring():
    assert choose("all-reduce", 4096, 256, 32, NVLINK_HOSTS).algorithm == "double-tree"
    assert choose("all-reduce", 2**30, 32, 4, NVLINK_HOSTS).algorithm == "ring"


@given(st.sampled_from(sorted(ALGORITHMS)), st.integers(0, 2**34), st.integers(1, 64), st.integers(1, 8), st.booleans())
def test_every_choice_is_an_algorithm_that_there_is(operation, size, hosts, local, nvlink):
    choice = choose(operation, size, hosts * local, hosts, Machine(25e9, nvlink))
    assert choice.algorithm in ALGORITHMS[operation]
    assert choice.reason


def test_mistakes_are_told_in_one_line():
    with pytest.raises(InputError, match="workers = 7 must fall into hosts = 2 of equally many"):
        choose("all-reduce", 8, 7, 2, HUNDRED_GBIT)
    with pytest.raises(InputError, match="generation = 'pascal' must be one of volta, ampere, hopper"):
        choose("all-reduce", 8, 8, 2, Machine(1e9, generation="pascal"))
    with pytest.raises(InputError, match="a bandwidth above 0 and at least one channel"):
        choose("all-reduce", 8, 8, 2, Machine(0.0))
