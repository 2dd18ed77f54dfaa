"""Links of the laboratory against the definitions, and what is said where there can be no laboratory at all."""

import builtins
import sys
from typing import Any

import pytest

from gradwire.analysis.laboratory import Link, burst_for, check_lab, payload_share, super_packet_for
from gradwire.analysis.laboratory.links import check_link
from gradwire.compressors.errors import InputError

RATES = [1e6, 1e7, 1e8, 3e8, 5e8, 1e9, 1e10, 32e9]


def frames_bytes(packet: int) -> int:
    """Cut an IP packet into frames one by one, as the definition of segmentation says."""
    total, left = 0, packet - 52
    while left > 0:
        total += min(left, 1448) + 52 + 14
        left -= 1448
    return total


@pytest.mark.parametrize("rate_bps", RATES)
def test_a_bucket_holds_2_ms_and_two_of_the_largest_packets(rate_bps: float) -> None:
    packet = super_packet_for(rate_bps)
    assert 1500 <= packet <= 65536
    assert packet in (1500, 65536, round(rate_bps / 8 * 1e-3))
    assert burst_for(rate_bps) == max(round(rate_bps / 8 * 2e-3), 2 * frames_bytes(packet))


@pytest.mark.parametrize("rate_bps", RATES)
def test_a_bucket_holds_from_one_of_the_largest_packets_to_a_second(rate_bps: float) -> None:
    least, most = frames_bytes(super_packet_for(rate_bps)), round(rate_bps / 8)
    for burst in (least, most):
        check_link(Link(rate_bps, burst))
    for burst in (least - 1, most + 1):
        with pytest.raises(InputError, match=f"holds from {least} bytes, a packet, to {most}, a second of the rate"):
            check_link(Link(rate_bps, burst))


def test_the_payload_share_is_that_of_a_full_frame() -> None:
    assert payload_share() == 1448 / 1514
    assert payload_share(9000) == 8948 / 9014


def test_without_linux_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match="^the laboratory needs Linux; this is darwin$"):
        check_lab()


@pytest.mark.skipif(sys.platform != "linux", reason="asks for Linux first")
def test_without_pyroute2_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    load = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == "pyroute2":
            raise ModuleNotFoundError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="needs the package pyroute2.*pip install 'gradwire\\[lab\\]' installs it$"):
        check_lab()
