"""What the transformers share: attention over heads."""

import math

import torch
from torch import Tensor, nn


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int, causal: bool) -> Tensor:
    """Return softmax(q k^T / sqrt(d)) v for each head, in unfused products.

    Parameters
    ----------
    q, k, v : Tensor, shape [batch, length, width]
    heads : int
    causal : bool
        Whether a place sees only those before it.
    """
    batch, length, width = q.shape
    q, k, v = (t.view(batch, length, heads, width // heads).transpose(1, 2) for t in (q, k, v))
    scores = q @ k.transpose(2, 3) / math.sqrt(width // heads)
    if causal:
        scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1), -math.inf)
    seen = nn.functional.dropout(scores.softmax(-1), 0.1) @ v
    return seen.transpose(1, 2).reshape(batch, length, width)
