"""From values to codes: rounding each row's entries, packing codes into bytes, and sums that no thread count changes.

Large units on a CPU go through compiled loops (:mod:`gradwire.compressors.quantizers.kernels`); everything else through
torch's operations, which give the same bits.
"""

import sys
from math import ceil
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..wire import pack, packed_bytes
from .rounding import Key, rounds_up

BLOCK = 1024
"""Values that are summed as one block."""
COMPILED_FROM = 1 << 16
"""Values from which on compiled loops are worth loading."""
_BITS = {torch.float32: (torch.int32, 23, 127), torch.float64: (torch.int64, 52, 1023)}
"""By dtype: the integer of the same size, the bits of the mantissa, the bias of the exponent."""


def compiled_loops(values: Tensor, count: int) -> ModuleType | None:
    """Return the compiled loops where they serve: on a CPU, for many values, or for any once they are loaded."""
    least = COMPILED_FROM >> 16 if f"{__package__}.kernels" in sys.modules else COMPILED_FROM
    if values.device.type != "cpu" or count < least:
        return None
    from . import kernels  # noqa: PLC0415 - numba loads slowly, and small units do not need it

    return kernels


def flattened(x: Tensor) -> Tensor:
    """Return values ``[W, *shape]`` as contiguous ``[W, n]`` in float32 or float64."""
    flat = x.reshape(len(x), -1)
    return flat.to(torch.promote_types(flat.dtype, torch.float32)).contiguous()


def mantissa_bits(dtype: torch.dtype) -> tuple[int, int]:
    """Return a float's bits of mantissa and of exponent."""
    _, mantissa, bias = _BITS[dtype]
    return mantissa, bias.bit_length() + 1


# ------------------------------------------------------------------------------------------------------ norms and sums


def bucket_norms(x: Tensor, bucket: int, norm: Literal["max", "l2"] = "max") -> Tensor:
    """Return the norm of each ``bucket`` consecutive entries of each row ``[W, n]``; the last may be of fewer."""
    full = x.shape[1] // bucket * bucket
    parts = [x[:, :full].view(len(x), -1, bucket), x[:, full:].view(len(x), 1, -1)]
    return torch.cat([_norms(part, norm) for part in parts if part.numel()], dim=1)


def _norms(buckets: Tensor, norm: Literal["max", "l2"]) -> Tensor:
    largest = torch.maximum(buckets.amax(2), -buckets.amin(2))
    if norm == "max":
        return largest
    # Of values up to 1, whose squares can neither overflow nor all vanish.
    norms: Tensor = torch.linalg.vector_norm(buckets / _divisor(largest)[:, :, None], dim=2)
    return norms.mul_(largest)


def _divisor(norms: Tensor) -> Tensor:
    """Return what to divide buckets by: their norms, and 1 where all is zero."""
    return torch.where(norms > 0, norms, 1)


def row_sums(x: Tensor, of: Literal["magnitudes", "values", "squares"], shift: Tensor | None = None) -> Tensor:
    """Sum over each row in float64, by halving, which no number of threads or rows changes.

    Parameters
    ----------
    x : Tensor, shape [W, n]
    of : {"magnitudes", "values", "squares"}
        What is added: |x|, x, or (x - shift)**2.
    shift : Tensor, shape [W]

    Returns
    -------
    Tensor of float64, shape [W]
    """
    rows, size = x.shape
    shift = x.new_zeros(rows, dtype=torch.float64) if shift is None else shift
    loops = compiled_loops(x, x.numel())
    blocks = ceil(size / BLOCK)
    if loops:
        sums = torch.empty(rows, blocks, dtype=torch.float64)
        kind, values, out, by = ("magnitudes", "values", "squares").index(of), x.numpy(), sums.numpy(), shift.tolist()
        loops.share(lambda r, a, b: loops.block_sums(values[r], kind, by[r], a, b, out[r]), rows, size)
        return _halved(sums)
    wide = x.double()
    if of == "magnitudes":
        wide = wide.abs()
    elif of == "squares":
        wide = (wide - shift[:, None]).square()
    padded = torch.nn.functional.pad(wide, (0, blocks * BLOCK - size))
    return _halved(_halved(padded.view(-1, BLOCK)).view(rows, blocks))


def _halved(terms: Tensor) -> Tensor:
    """Sum over the last dimension by adding its second half to its first, again and again."""
    if terms.device.type == "cpu":  # numpy starts its operations faster, and adds alike
        return torch.from_numpy(np.asarray(_folded(terms.numpy())))
    length = 1 << max(0, terms.shape[-1] - 1).bit_length()
    terms = torch.nn.functional.pad(terms, (0, length - terms.shape[-1]))
    while length > 1:
        length //= 2
        terms = terms[..., :length] + terms[..., length:]
    return terms[..., 0]


def _folded(terms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Do the same in numpy; what is missing in the second half would be zeros."""
    while (size := terms.shape[-1]) > 1:
        half = 1 << (size - 1).bit_length() - 1
        folded = terms[..., :half].copy()
        folded[..., : size - half] += terms[..., half:]
        terms = folded
    return np.asarray(terms[..., 0])


# ------------------------------------------------------------------------------------------------------------ rounding


def random_levels(
    x: Tensor, norms: Tensor, bucket: int, top: int, keys: list[Key], limits: Tensor | None = None
) -> Tensor:
    """Round magnitudes at random to one of ``top`` equal levels of a norm, so that their expectation is kept.

    Parameters
    ----------
    x : Tensor, shape [W, n]
    norms : Tensor, shape [W, ceil(n / bucket)]
        In the dtype of ``x``, at least as large as the bucket's magnitudes, or zero.
    keys : list of Key
        One for each row.
    limits : Tensor, shape [W], optional
        In the dtype of ``x``: larger magnitudes count as so large.

    Returns
    -------
    Tensor of uint8, shape [W, n]
        ``top`` plus the signed level, so 0 to 2 top.
    """
    limits = x.new_full((len(x),), torch.inf) if limits is None else limits
    loops = compiled_loops(x, x.numel())
    if loops:
        codes = torch.empty(x.shape, dtype=torch.uint8)
        values, by, out, most = x.numpy(), norms.numpy(), codes.numpy(), limits.numpy()
        words = loops.unsigned(keys)
        loops.share(
            lambda r, a, b: loops.levels(values[r], by[r], bucket, top, most[r], *words[r], a, b, out[r]), *x.shape
        )
        return codes
    position = (x.abs().minimum(limits[:, None]) / _spread(norms, bucket, x)).mul_(top).clamp_(max=top)
    level = position.floor()
    level += torch.stack([rounds_up(p, key) for p, key in zip(position - level, keys, strict=True)])
    return _centred(level.copysign_(x), top)


def nearest_levels(x: Tensor, norms: Tensor, bucket: int, top: int) -> Tensor:
    """Round entries to the nearest of ``top`` equal levels of a norm, halves to even; as :func:`random_levels`."""
    loops = compiled_loops(x, x.numel())
    if loops:
        codes = torch.empty(x.shape, dtype=torch.uint8)
        values, by, out = x.numpy(), norms.numpy(), codes.numpy()
        loops.share(lambda r, a, b: loops.nearest(values[r], by[r], bucket, top, a, b, out[r]), *x.shape)
        return codes
    return _centred((x / _spread(norms, bucket, x)).mul_(top).round_(), top)


def power_levels(x: Tensor, norms: Tensor, bucket: int, top: int, keys: list[Key]) -> Tensor:
    """Round magnitudes at random to 0 or one of ``top`` powers of two up to a norm; as :func:`random_levels`.

    Level j from 1 on stands for 2**(j - top) of the norm.
    """
    integer, mantissa, bias = _BITS[x.dtype]
    loops = compiled_loops(x, x.numel())
    if loops:
        codes = torch.empty(x.shape, dtype=torch.uint8)
        values, by, out, words = x.numpy(), norms.numpy(), codes.numpy(), loops.unsigned(keys)

        def work(r: int, a: int, b: int) -> None:
            ratio = torch.empty(2, BLOCK, dtype=x.dtype)
            scratch = (ratio[0].numpy(), ratio[0].view(integer).numpy(), mantissa, bias, ratio[1].numpy())
            loops.powers(values[r], by[r], bucket, top, *scratch, *words[r], a, b, out[r])

        loops.share(work, *x.shape)
        return codes
    ratio = (x.abs() / _spread(norms, bucket, x)).clamp_(max=1)
    bits = ratio.view(integer)
    above = (bits >> mantissa) - (bias - top + 1)
    fraction = (bits & ((1 << mantissa) - 1)).to(x.dtype) * 2.0**-mantissa
    p = torch.where(above >= 0, fraction, ratio * 2.0 ** (top - 1))
    level = (above + 1).clamp_(min=0).to(x.dtype)
    level += torch.stack([rounds_up(row, key) for row, key in zip(p, keys, strict=True)])
    return _centred(level.copysign_(x), top)


def random_exponents(x: Tensor, keys: list[Key]) -> Tensor:
    """Round at random to a neighbouring power of two, so that the expectation is kept: one up with the mantissa.

    Returns
    -------
    Tensor of int16, shape [W, n]
        The exponent field and, above it, the sign. 0 is zero.
    """
    integer, mantissa, bias = _BITS[x.dtype]
    highest, bits = 2 * bias, x.view(integer)
    loops = compiled_loops(x, x.numel())
    if loops:
        codes = torch.empty(x.shape, dtype=torch.int16)
        values, out, words = bits.numpy(), codes.numpy(), loops.unsigned(keys)

        def work(r: int, a: int, b: int) -> None:
            scaled = torch.empty(BLOCK, dtype=x.dtype).numpy()
            loops.exponents(values[r], mantissa, highest, scaled, *words[r], a, b, out[r])

        loops.share(work, *x.shape)
        return codes
    fraction = (bits & ((1 << mantissa) - 1)).to(x.dtype) * 2.0**-mantissa
    up = torch.stack([rounds_up(row, key) for row, key in zip(fraction, keys, strict=True)])
    field = ((bits >> mantissa) & (highest + 1)).add_(up).clamp_(max=highest)
    return field.add_((bits < 0) * (highest + 2)).to(torch.int16)


def _spread(norms: Tensor, bucket: int, x: Tensor) -> Tensor:
    """Return each entry's divisor, of the shape of x."""
    return _divisor(norms).repeat_interleave(min(bucket, x.shape[1]), 1)[:, : x.shape[1]]


def _centred(level: Tensor, top: int) -> Tensor:
    """Return signed levels as codes from 0 on."""
    return level.add_(top).to(torch.uint8)


# ------------------------------------------------------------------------------------------------------------- packing


def pack_codes(codes: Tensor, bits: int) -> Tensor:
    """Pack codes ``[W, n]`` into bits, as :func:`gradwire.compressors.wire.pack` does."""
    if bits == 8 and codes.dtype == torch.uint8:
        return codes
    loops = compiled_loops(codes, codes.numel())
    if loops is None:
        return pack(codes, bits)
    packed = torch.empty(len(codes), packed_bytes(codes.shape[1], bits), dtype=torch.uint8)
    given, out = codes.numpy(), packed.numpy()
    loops.share(lambda r, a, b: loops.pack_bits(given[r], bits, a, b, out[r]), *codes.shape)
    return packed


def pack_trits(codes: Tensor) -> Tensor:
    """Pack digits of base 3 ``[W, n]``, five to a byte, the first the lowest: 3**5 = 243."""
    rows, size = codes.shape
    packed = torch.empty(rows, ceil(size / 5), dtype=torch.uint8, device=codes.device)
    loops = compiled_loops(codes, codes.numel())
    if loops:
        given, out = codes.numpy(), packed.numpy()
        loops.share(lambda r, a, b: loops.pack_trits(given[r], a, b, out[r]), rows, size)
        return packed
    padded = torch.nn.functional.pad(codes, (0, -size % 5)).view(rows, -1, 5)
    torch.sum(padded * padded.new_tensor([1, 3, 9, 27, 81]), 2, dtype=torch.uint8, out=packed)
    return packed


def pack_signs(x: Tensor) -> Tensor:
    """Pack one bit for each entry of ``[W, n]``, set where it is at least zero."""
    positive = x >= 0
    if x.device.type != "cpu":
        return pack(positive.to(torch.uint8), 1)
    return torch.from_numpy(np.packbits(positive.numpy(), axis=1, bitorder="little"))
