"""Devices of a namespace and their shaping, as calls to the kernel; each in the namespace of the calling thread."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from .links import MTU_BYTES, SUPER_PACKET_BYTES, Link, super_packet_for
from .namespaces import netlink

INTERFACE = "eth0"
"""Name of a host's end of its link."""
BRIDGE = "switch"
QUEUE_BYTES = 2_000_000
"""What waits before a link at most, as at a port of a switch with shallow buffers; then packets are dropped."""
ROOT_HANDLE = 0x10000
CONGESTION_CONTROLS = ("cubic", "reno")
"""TCP's congestion control in the hosts, the first that may be had: the default of Linux, and what is never absent."""
SYSCTL = Path("/proc/sys/net")


def build_switch(hosts: list[int]) -> None:
    """Make the bridge, and for each host a link from it into the host's namespace, which is given by a descriptor."""
    with netlink() as kernel:
        kernel.link("add", ifname=BRIDGE, kind="bridge")
        bridge = _index(kernel, BRIDGE)
        kernel.link("set", index=bridge, state="up")
        for host, descriptor in enumerate(hosts):
            peer = {"ifname": INTERFACE, "net_ns_fd": descriptor, "mtu": MTU_BYTES}
            kernel.link("add", ifname=port(host), kind="veth", mtu=MTU_BYTES, peer=peer)
            kernel.link("set", index=_index(kernel, port(host)), master=bridge, state="up")


def build_host(address: str, prefix: int) -> str:
    """Bring up a host's interfaces and give it its address; return the congestion control of its TCP."""
    with netlink() as kernel:
        kernel.link("set", index=_index(kernel, "lo"), state="up")
        own = _index(kernel, INTERFACE)
        kernel.link("set", index=own, state="up")
        kernel.addr("add", index=own, address=address, prefixlen=prefix)
    return _choose_congestion_control()


def prepare() -> None:
    """Keep IPv6 off the devices that this namespace gets, which would announce themselves on the links."""
    with suppress(FileNotFoundError):  # a kernel without IPv6
        (SYSCTL / "ipv6/conf/default/disable_ipv6").write_text("1")


def _choose_congestion_control() -> str:
    chosen = SYSCTL / "ipv4/tcp_congestion_control"
    for name in CONGESTION_CONTROLS:
        with suppress(FileNotFoundError, PermissionError):  # the kernel lacks it, or keeps it to its first namespace
            chosen.write_text(name)
            break
    return chosen.read_text().strip()


def port(host: int) -> str:
    """Return the name of the bridge's end of a host's link."""
    return f"port{host}"


def shape(device: str, link: Link | None) -> None:
    """Shape what a device sends; None lets it send as fast as it can."""
    with netlink() as kernel:
        index = _index(kernel, device)
        if link is None:
            kernel.link("set", index=index, gso_max_size=SUPER_PACKET_BYTES)
            if _is_shaped(kernel, index):
                kernel.tc("del", index=index, root=True)
            return
        kernel.link("set", index=index, gso_max_size=super_packet_for(link.rate_bps))
        rate = round(link.rate_bps / 8)
        limit = QUEUE_BYTES + link.burst_bytes
        kernel.tc("replace", "tbf", index, ROOT_HANDLE, rate=rate, burst=link.burst_bytes, limit=limit)


def _is_shaped(kernel: Any, index: int) -> bool:
    return any(rule.get_attr("TCA_KIND") == "tbf" for rule in kernel.get_qdiscs(index=index))


def _index(kernel: Any, device: str) -> int:
    index: int = kernel.link_lookup(ifname=device)[0]
    return index
