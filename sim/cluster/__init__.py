"""Clusters: what connects the workers, as presets with sources or as given by the user."""

from .cluster import CLUSTERS, Cluster, Sources, load_cluster

__all__ = ["CLUSTERS", "Cluster", "Sources", "load_cluster"]
