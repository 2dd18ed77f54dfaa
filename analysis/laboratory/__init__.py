"""A laboratory on one Linux machine: hosts as network namespaces, joined by a bridge over links of a known rate."""

from .checks import check_lab, missing_features
from .laboratory import Laboratory
from .links import Link, burst_for, payload_share, super_packet_for
from .transfer import MeasuredRate

__all__ = [
    "Laboratory",
    "Link",
    "MeasuredRate",
    "burst_for",
    "check_lab",
    "missing_features",
    "payload_share",
    "super_packet_for",
]
