"""Clusters: presets that load, say where their numbers come from, and survive being written."""

import pytest
from pydantic import ValidationError

from gradwire.sim.cluster import CLUSTERS, Cluster, load_cluster


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_preset_has_a_source_for_every_number(name: str):
    cluster = load_cluster(name)
    assert cluster.description
    given = cluster.model_fields_set | {"bandwidth", "latency", "launch"}
    sources = cluster.source.model_dump()
    assert {key for key, text in sources.items() if len(text) > 20} == given & set(sources)
    unsourced = {"description", "source", "gpus"}  # gpus: said by the source of the bandwidth or of intra
    assert given <= set(sources) | unsourced
    assert Cluster.model_validate(cluster.model_dump(by_alias=True)) == cluster


LINES = [name for name in CLUSTERS if name.split("-")[0] in ("ethernet", "infiniband") and name.count("-") == 1]


@pytest.mark.parametrize("name", LINES)
def test_a_preset_is_a_little_slower_than_the_line_rate_in_its_name(name: str):
    line_rate = float(name.split("-")[1].removesuffix("g")) * 1e9
    assert 0.85 * line_rate < load_cluster(name).bandwidth < line_rate


def test_an_unknown_name_is_refused_with_the_nearest_ones():
    with pytest.raises(ValueError, match=r"cluster 'ethernet10g' is unknown; did you mean ethernet-10g"):
        load_cluster("ethernet10g")
    with pytest.raises(ValueError, match=r"there are aws-p3-16xlarge, .*, ethernet-100g, "):
        load_cluster("zzz")


def test_a_cluster_is_checked():
    good = {"bandwidth": "10 Gbit/s", "latency": "50 us", "launch": "20 us"}
    assert Cluster.model_validate(good).source.bandwidth == "given"
    for wrong in ({"bandwidth": 1e10}, {"bandwidth": "0 Gbit/s"}, {"latency": "-1 us"}, {"bandwith": "1 Gbit/s"}):
        with pytest.raises(ValidationError):
            Cluster.model_validate({**good, **wrong})
