"""Clusters: what connects the workers, as presets with sources or as given by the user."""

from .cluster import CLUSTERS, Cluster, Sources, load_cluster, read_cluster
from .topology import Routes, Terms, Topology
from .uniform import Tier, Uniform

__all__ = [
    "CLUSTERS",
    "Cluster",
    "Routes",
    "Sources",
    "Terms",
    "Tier",
    "Topology",
    "Uniform",
    "load_cluster",
    "read_cluster",
]
