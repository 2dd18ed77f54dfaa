"""The cluster's own cost of gathering, which adaptive schemes can weigh."""

import pytest

from gradwire.compressors.base import SchemeError
from gradwire.compressors.errors import InputError
from gradwire.compressors.spec import parse_scheme
from gradwire.sim.cluster.cluster import make_cluster
from gradwire.sim.experiment import validate_experiment
from gradwire.sim.network.costs import Costs
from gradwire.sim.network.gather_cost import gather_line
from gradwire.sim.prediction import make_job, predict

PLAIN = {"bandwidth": "8 Mbit/s", "latency": "10 ms", "launch": "5 ms"}
"""A byte a microsecond."""


@pytest.mark.parametrize("more", [{}, {"hosts": 4, "fabric": {"kind": "switch", "core": "32 Mbit/s"}}])
def test_the_line_is_the_rings(more):
    """N - 1 rounds of latency and payload, and a launch: (5 + 3 * 10) ms at 3 us a byte."""
    line = gather_line(Costs(make_cluster(PLAIN | more), 4))
    assert line.fixed == pytest.approx((5e-3 + 3 * 10e-3) / 3e-6, abs=1e-3)
    assert (line.per_packet, line.packet) == (1, 1)


def test_unequal_hosts_are_played():
    """One slow host sets the pace of the ring: two microseconds a byte."""
    line = gather_line(Costs(make_cluster(PLAIN | {"host": [{"which": 1, "bandwidth": "4 Mbit/s"}]}), 4))
    assert line.fixed == pytest.approx((5e-3 + 3 * 10e-3) / 6e-6, rel=1e-6)


@pytest.mark.parametrize("start", ["300 kB", "1 MB"])
def test_regression_a_line_through_two_pieces_had_a_negative_fixed_part(start):
    """Small payloads pay 10 s each; a megabyte belongs to the larger piece: 5 ms, 3 rounds of 2 ms and 3 us a byte."""
    pieces = [{"from": "0 B", "latency": "10 s"}, {"from": start, "latency": "2 ms"}]
    line = gather_line(Costs(make_cluster(PLAIN | {"pieces": pieces}), 4))
    assert line.fixed == pytest.approx((5e-3 + 3 * 2e-3) / 3e-6, abs=0.1)


def test_a_piece_too_narrow_for_a_line_is_named():
    pieces = [{"from": "0 B"}, {"from": "900 kB", "latency": "1 ms"}, {"from": "1100 kB", "latency": "2 ms"}]
    with pytest.raises(InputError, match=r"cluster.pieces: from = 900000 to 1100000 bytes: too narrow") as caught:
        gather_line(Costs(make_cluster(PLAIN | {"pieces": pieces}), 4))
    assert "\n" not in str(caught.value)


def test_one_worker_pays_nothing():
    assert gather_line(Costs(make_cluster(PLAIN), 1)).fixed == 0


def test_an_experiment_fills_in_its_clusters_numbers():
    data = {"schemes": ["dense", "ef(cat(cost=cluster))"], "cluster": PLAIN, "training": {"workers": 4}}
    texts = validate_experiment(data).schemes
    assert texts[0] == "dense(dtype=native)"
    assert str(parse_scheme(texts[1])) == "ef(cat(operator=top, cost=affine, fixed=11666.667, per_packet=1, packet=1))"


def test_a_slower_network_makes_workers_send_less():
    jobs = [
        make_job({"model": "resnet18", "scheme": "cat(cost=cluster)", "cluster": PLAIN | {"bandwidth": rate}})
        for rate in ("10 Mbit/s", "10 Gbit/s")
    ]
    slow, fast = (sum(predict(job).sent_bytes) for job in jobs)
    assert slow < fast


def test_without_a_simulation_there_is_no_such_cost():
    with pytest.raises(SchemeError, match="cat: cost = 'cluster' is filled in by a simulation"):
        parse_scheme("cat(cost=cluster)").init((4,), 1, None)
