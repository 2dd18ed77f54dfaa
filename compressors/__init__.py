"""What crosses the wire: compression schemes, their memories, and the drivers that exchange their payloads."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ddp import ddp_hook

__all__ = ["ddp_hook"]


def __getattr__(name: str) -> Any:
    """Import the hook when it is asked for: it needs ``torch.distributed``, which nothing else here does."""
    if name != "ddp_hook":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .ddp import ddp_hook  # noqa: PLC0415

    return ddp_hook
