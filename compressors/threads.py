"""One thread for what more of them would round differently."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep products of matrices and LAPACK to one thread: more of them may add up in another order.

    Which shapes that is true of depends on the library and the processor.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
