"""What a machine needs for a laboratory, found out by trying it in a namespace that is then dropped."""

import errno
import sys
from collections.abc import Callable
from typing import Any

from ...compressors.errors import InputError
from .namespaces import Namespace, netlink
from .shaping import prepare

FEATURES: dict[str, dict[str, Any]] = {
    "tbf": {"handle": 0x10000, "rate": 125_000, "burst": 10_000, "limit": 100_000},
    "netem": {"handle": 0x10000, "delay": 1000},
}
"""Disciplines of queues that a laboratory uses or could use, with arguments that any kernel takes."""
DEVICE = "trial"
REMEDY = "run it as root, or under unshare --user --map-root-user"


def check_lab() -> None:
    """Make sure that this machine can have a laboratory.

    Raises
    ------
    InputError
        It is not Linux, the package pyroute2 or a right is missing, or the kernel lacks veth, bridge or tbf. One line.
    """
    if "tbf" in missing_features():
        raise InputError("the kernel has no tbf (CONFIG_NET_SCH_TBF), which shapes the laboratory's links")


def missing_features() -> tuple[str, ...]:
    """Return which of tbf, without which there is no laboratory, and netem, which would delay packets, are missing.

    Raises
    ------
    InputError
        As :func:`check_lab`, but for tbf.
    """
    if sys.platform != "linux":
        raise InputError(f"the laboratory needs Linux; this is {sys.platform}")
    netlink().close()  # says so if the package is missing
    try:
        trial = Namespace()
    except PermissionError as error:
        raise InputError(
            f"the laboratory makes network namespaces, which needs root (CAP_SYS_ADMIN); {REMEDY}"
        ) from error
    except OSError as error:
        raise InputError(f"the kernel makes no network namespace (CONFIG_NET_NS): {error.strerror}") from error
    try:
        trial.call(prepare)
        return trial.call(_try_features)
    except OSError as error:
        raise InputError(f"the laboratory sets net.* in its hosts, which fails here: {error}") from error
    finally:
        trial.close()


def _try_features() -> tuple[str, ...]:
    """Make a bridge and a pair of devices, and try every discipline on one of them."""
    with netlink() as kernel:
        for kind, arguments in (("bridge", {}), ("veth", {"peer": {"ifname": "other"}})):
            code = _refused(kernel.link, "add", ifname=DEVICE + kind, kind=kind, **arguments)
            if code in (errno.EPERM, errno.EACCES):
                raise InputError(f"the laboratory makes network devices, which needs root (CAP_NET_ADMIN); {REMEDY}")
            if code:
                raise InputError(f"the kernel has no {kind} (CONFIG_{kind.upper()}), which the laboratory is made of")
        index = kernel.link_lookup(ifname=DEVICE + "veth")[0]
        return tuple(
            name for name, arguments in FEATURES.items() if _refused(kernel.tc, "replace", name, index, **arguments)
        )


def _refused(request: Callable[..., Any], *args: Any, **kwargs: Any) -> int:
    """Return the number of the error with which the kernel refuses a request, 0 if it does not."""
    from pyroute2.netlink.exceptions import NetlinkError  # noqa: PLC0415

    try:
        request(*args, **kwargs)
    except NetlinkError as error:
        return int(error.code)
    return 0
