"""The wire forms against a big number: codes are its digits, bytes are its digits too."""

import struct
from zlib import crc32

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gradwire.compressors import wire
from gradwire.compressors.payload import HEADER_BYTES, Payload, Ragged, row_bytes
from gradwire.compressors.wire import (
    WireError,
    check_header,
    header,
    index_bits,
    pack,
    packed_bytes,
    unpack,
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""


def digits(codes: list[int], bits: int) -> list[int]:
    """Return the bytes of the number whose digits in base 2**bits are the codes, lowest first."""
    number = sum(code << (bits * place) for place, code in enumerate(codes))
    return list(number.to_bytes((len(codes) * bits + 7) // 8, "little"))


@given(bits=st.integers(1, 32), count=st.integers(0, 40), rows=st.integers(1, 3), data=st.data())
@settings(PATIENT, max_examples=300)
def test_layout_is_that_of_a_big_number(bits, count, rows, data):
    code = st.integers(0, 2**bits - 1)
    codes = data.draw(st.lists(st.lists(code, min_size=count, max_size=count), min_size=rows, max_size=rows))
    tensor = torch.tensor(codes, dtype=torch.int64).view(rows, count)
    packed = pack(tensor, bits)
    lanes = wire._pack_lanes(tensor, bits)  # what long rows and other devices take
    assert torch.equal(lanes, packed)
    assert wire._unpack_lanes(lanes, bits, count, torch.int64).tolist() == codes
    assert packed.dtype == torch.uint8
    assert packed.shape == (rows, packed_bytes(count, bits))
    assert packed.is_contiguous()
    assert packed.tolist() == [digits(row, bits) for row in codes]
    assert unpack(packed, bits, count).tolist() == codes


@pytest.mark.parametrize("pairs", [20, 5000])
@pytest.mark.parametrize("bits", range(1, 33))
def test_extreme_codes_survive(bits, pairs):
    codes = torch.tensor([[0, 2**bits - 1] * pairs, [2**bits - 1] * 2 * pairs])
    assert torch.equal(unpack(pack(codes, bits), bits, 2 * pairs), codes)


@pytest.mark.parametrize(("bits", "dtype"), [(1, torch.uint8), (4, torch.int8), (7, torch.int16), (20, torch.int32)])
def test_other_integer_dtypes(bits, dtype):
    codes = torch.arange(50, dtype=torch.int64).remainder(min(2**bits, 128)).to(dtype)[None]
    packed = pack(codes, bits)
    assert packed.tolist() == [digits(codes[0].tolist(), bits)]
    found = unpack(packed, bits, 50, dtype)
    assert found.dtype == dtype
    assert torch.equal(found, codes)


@pytest.mark.parametrize("bits", [1, 16, 32])
def test_fast_ways_read_rows_that_lie_apart_or_at_odd_addresses(bits):
    codes = torch.arange(120).view(2, 60).remainder(2 ** min(bits, 31))
    apart = codes.repeat_interleave(2, dim=1)[:, ::2]
    packed = pack(apart, bits)
    assert packed.is_contiguous()
    assert packed.tolist() == [digits(row, bits) for row in codes.tolist()]
    shifted = torch.cat([packed[:, :1], packed], dim=1)[:, 1:]
    assert torch.equal(unpack(shifted, bits, 60), codes)


def test_packing_leaves_its_input_alone():
    codes = torch.tensor([[1, 2, 3]], dtype=torch.int16)
    packed = pack(codes, 16)
    packed.zero_()
    assert codes.tolist() == [[1, 2, 3]]


def test_layout_of_three_codes_by_hand():
    """0b101, 0b110, 0b011 in 3 bits each: from the low end 101 110 11|0, so 0b11110101 and 0b0."""
    assert pack(torch.tensor([[0b101, 0b110, 0b011]]), 3).tolist() == [[0b11110101, 0b0]]


@pytest.mark.parametrize(
    ("size", "bits"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9), (2**31 + 1, 32)]
)
def test_index_bits_reach_the_last_index(size, bits):
    assert index_bits(size) == bits
    assert (size - 1) >> bits == 0


@pytest.mark.parametrize(("count", "bits", "expected"), [(0, 5, 0), (1, 1, 1), (9, 1, 2), (3, 11, 5), (7, 32, 28)])
def test_packed_bytes(count, bits, expected):
    assert packed_bytes(count, bits) == expected


# ------------------------------------------------------------------------------------------------------------ headers


def test_header_layout():
    text = "ef(topk(density=0.01))"
    found = header(text, 70_000)
    assert len(found) == HEADER_BYTES == 8
    assert found == bytes([1, 0]) + (crc32(text.encode()) % 65536).to_bytes(2, "little") + (70_000).to_bytes(
        4, "little"
    )


def test_own_header_is_accepted():
    check_header(header("dense", 5), "dense", 5, rank=3)
    with pytest.raises(WireError):
        check_header(header("dense", 5), "dense", 6, rank=3)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (header("topk(density=0.1)", 100), r"another scheme than topk\(density=0.2\) \(check sum 0x[0-9a-f]{4}\)"),
        (header("topk(density=0.2)", 99), "a unit of 99 values instead of 100"),
        (struct.pack("<BBHI", 7, 0, 0, 100), "wire version 7 instead of 1"),
        (bytes(8), "wire version 0 instead of 1"),
    ],
)
def test_a_wrong_header_is_refused_with_the_reason(found, message):
    expected = rf"^worker 2 sent {message}: all workers must run the same scheme on the same units$"
    with pytest.raises(WireError, match=expected):
        check_header(found, "topk(density=0.2)", 100, rank=2)


# ----------------------------------------------------------------------------------------------------------- payloads


def test_ragged_rows():
    buffer = Ragged.of([torch.tensor([1, 2, 3]), torch.tensor([], dtype=torch.int64), torch.tensor([4])])
    assert buffer.offsets == (0, 3, 3, 4)
    assert buffer.lengths == [3, 0, 1]
    assert [buffer.row(r).tolist() for r in range(3)] == [[1, 2, 3], [], [4]]
    assert row_bytes(buffer) == [24, 0, 8]


def test_payload_bytes_add_up_over_buffers():
    ragged = Ragged.of([torch.zeros(3, dtype=torch.int16), torch.zeros(1, dtype=torch.int16)])
    payload = Payload((torch.zeros(2, 5), ragged, torch.zeros(2, 3, dtype=torch.uint8)))
    assert payload.row_bytes == [20 + 6 + 3, 20 + 2 + 3]
    assert payload.is_ragged
    assert not Payload((torch.zeros(2, 5),)).is_ragged
    assert payload.fixed(2).dtype == torch.uint8
    with pytest.raises(TypeError, match="buffer 1 is ragged"):
        payload.fixed(1)


def test_payload_apart_from_a_memory_survives_its_change():
    memory = torch.arange(6.0).view(2, 3)
    other = torch.ones(2, 1)
    payload = Payload((memory[:, 1:], other, Ragged.of([other[0], other[1]]))).apart_from(memory)
    memory.zero_()
    assert payload.fixed(0).tolist() == [[1, 2], [4, 5]]
    assert payload.fixed(1) is other
