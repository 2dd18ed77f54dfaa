"""Links that a token bucket shapes: their rate, the bucket's size, and the share of a rate that is payload."""

from math import ceil
from typing import NamedTuple

from ...compressors.errors import InputError

MTU_BYTES = 1500
ETHERNET_BYTES = 14
"""Header of a frame as ``tbf`` counts it: addresses and type, without preamble, checksum and gap."""
HEADERS_BYTES = 52
"""IPv4 (20), TCP (20) and TCP's time stamps (12), which Linux sends by default."""
FRAME_BYTES = MTU_BYTES + ETHERNET_BYTES
SUPER_PACKET_S = 1e-3
"""Longest time that one super-packet may keep a link busy."""
SUPER_PACKET_BYTES = 65536
"""Largest super-packet of the kernel's default."""
BURST_S = 2e-3
"""What the bucket holds, in time of the link: 1 ms for a super-packet that waits, 1 ms for the timer's lateness."""
LONGEST_BURST_S = 1.0
LOWEST_BPS, HIGHEST_BPS = 1e6, 32e9
"""``tbf`` counts bytes a second in 32 bits, which ends at 34 Gbit/s."""


class Link(NamedTuple):
    """The link of a host, alike in both directions.

    Attributes
    ----------
    rate_bps : float
        Bits of Ethernet frames a second, from 1 Mbit/s to 32 Gbit/s; :func:`payload_share` of them are payload.
    burst_bytes : int
        Size of the token bucket: so much passes at the speed of memory after a pause. See :func:`burst_for`.
    """

    rate_bps: float
    burst_bytes: int


def super_packet_for(rate_bps: float) -> int:
    """Return the largest super-packet, in bytes, that TCP may hand to a link.

    Linux cuts TCP's data into frames late: until then up to 64 kB travel as one packet. That saves most of the CPU
    time of a transfer, but the token bucket must hold such a packet whole, and nothing overtakes it. So it is as much
    as the link carries in 1 ms, at least a frame and at most the kernel's 64 kB.
    """
    return round(min(max(rate_bps / 8 * SUPER_PACKET_S, MTU_BYTES), SUPER_PACKET_BYTES))


def burst_for(rate_bps: float) -> int:
    """Return the size of the token bucket, in bytes, with which a link reaches its rate.

    ``tbf`` sleeps until the bucket holds the next packet, and what flows into a full bucket while it sleeps too long is
    lost to the rate. So the bucket is of 2 ms of the rate, of which a super-packet takes 1 ms, and never less than two
    super-packets. This presumes high-resolution timers; a kernel without them wakes only ``CONFIG_HZ`` times a second
    and needs rate / ``CONFIG_HZ`` more.
    """
    return max(round(rate_bps / 8 * BURST_S), 2 * _on_the_link(super_packet_for(rate_bps)))


def payload_share(mtu_bytes: int = MTU_BYTES) -> float:
    """Return the share of a shaped rate that is TCP payload, where packets are full.

    A frame of ``mtu_bytes`` + 14 bytes carries ``mtu_bytes`` - 52 of payload: 1448 / 1514 at an MTU of 1500.
    Acknowledgements go the other way and take from that direction's rate.
    """
    return (mtu_bytes - HEADERS_BYTES) / (mtu_bytes + ETHERNET_BYTES)


def check_link(link: Link | None) -> None:
    """Raise an :class:`InputError` for a link that cannot be shaped."""
    if link is None:
        return
    if not LOWEST_BPS <= link.rate_bps <= HIGHEST_BPS:
        raise InputError(f"rate_bps = {link.rate_bps!r}: a link of the laboratory has from 1 Mbit/s to 32 Gbit/s")
    least = _on_the_link(super_packet_for(link.rate_bps))
    most = round(link.rate_bps / 8 * LONGEST_BURST_S)
    if not least <= link.burst_bytes <= most:
        raise InputError(
            f"burst_bytes = {link.burst_bytes!r}: at {link.rate_bps:g} bit/s the token bucket holds from {least} "
            f"bytes, a packet, to {most}, a second of the rate; burst_for gives {burst_for(link.rate_bps)}"
        )


def _on_the_link(super_packet_bytes: int) -> int:
    """Return the bytes of the frames that a super-packet becomes."""
    payload = super_packet_bytes - HEADERS_BYTES
    return payload + ceil(payload / (MTU_BYTES - HEADERS_BYTES)) * (HEADERS_BYTES + ETHERNET_BYTES)
