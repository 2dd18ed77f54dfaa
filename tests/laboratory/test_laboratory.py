"""The laboratory against what the kernel and real transfers say: hosts, rates, processes, and that nothing is left."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gradwire.analysis.laboratory import Laboratory, Link, burst_for, check_lab, missing_features, payload_share
from gradwire.analysis.laboratory.laboratory import MARK
from gradwire.analysis.laboratory.namespaces import Namespace, identity, netlink
from gradwire.compressors.errors import InputError

try:
    check_lab()
    REASON = ""
except InputError as error:
    REASON = str(error)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

FAST = Link(300e6, burst_for(300e6))
SLEEP = ["sleep", "1000"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Laboratory]:
    with Laboratory(3, FAST) as made:
        yield made


class Watch:
    """Watches namespaces without keeping them alive: the kernel removes a pair of devices with either's namespace."""

    def __init__(self, paths: list[str]) -> None:
        self._here = Namespace()
        self._here.call(self._connect, paths)
        assert self.living() == len(paths)

    @staticmethod
    def _connect(paths: list[str]) -> None:
        with netlink() as kernel:
            for number, path in enumerate(paths):
                descriptor = os.open(path, os.O_RDONLY)
                peer = {"ifname": "watched", "net_ns_fd": descriptor}
                kernel.link("add", ifname=f"watch{number}", kind="veth", peer=peer)
                os.close(descriptor)

    def living(self) -> int:
        """Return how many of the namespaces the kernel still has."""
        return sum(name.startswith("watch") for _, name in self._here.call(socket.if_nameindex))

    def all_end(self) -> bool:
        ended = becomes(lambda: self.living() == 0)
        self._here.close()
        return ended


def watch(lab: Laboratory) -> Watch:
    return Watch([namespace.path for namespace in lab._all])


def becomes(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def output(lab: Laboratory, host: int, code: str) -> str:
    """Run Python in a host and return what it prints."""
    process = lab.start(host, [sys.executable, "-c", code], stdout=subprocess.PIPE)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return printed.decode().strip()


# ------------------------------------------------------------------------------------------------------------- hosts


def test_every_host_is_a_network_of_its_own_with_its_address(lab: Laboratory) -> None:
    seen = set()
    for host, address in enumerate(lab.addresses):
        code = (
            "import fcntl, os, socket, struct\n"
            f"asked = struct.pack('256s', {lab.interface!r}.encode())\n"
            "reply = fcntl.ioctl(socket.socket(), 0x8915, asked)\n"  # SIOCGIFADDR
            "print(socket.inet_ntoa(reply[20:24]), os.readlink('/proc/self/ns/net'))"
        )
        own, network = output(lab, host, code).split()
        assert own == address
        assert network == os.readlink(lab.namespaces[host])
        seen.add(network)
    assert len(seen) == 3
    assert os.readlink("/proc/self/ns/net") not in seen


def test_the_machine_sees_nothing_of_it_and_it_nothing_of_the_machine(lab: Laboratory) -> None:
    names = {name for _, name in socket.if_nameindex()}
    assert not names & {"switch", "port0", "port1", "port2"}
    assert output(lab, 0, "import socket; print(sorted(n for _, n in socket.if_nameindex()))") == "['eth0', 'lo']"
    elsewhere = "import errno, socket; print(errno.errorcode[socket.socket().connect_ex(('192.0.2.1', 9))])"
    assert output(lab, 0, elsewhere) == "ENETUNREACH"


def test_hosts_reach_each_other(lab: Laboratory) -> None:
    code = (
        f"import socket; server = socket.create_server(({lab.addresses[2]!r}, 4321)); print('ready', flush=True)\n"
        "there, who = server.accept(); print(who[0], there.recv(99).decode())"
    )
    server = lab.start(2, [sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    output(lab, 1, f"import socket; socket.create_connection(({lab.addresses[2]!r}, 4321)).sendall(b'hello')")
    printed, _ = server.communicate(timeout=60)
    assert printed.decode().split() == [lab.addresses[1], "hello"]


def test_environment_and_streams_are_handed_on(lab: Laboratory, tmp_path: Path) -> None:
    written = tmp_path / "err"
    with written.open("wb") as stream:
        code = "import os, sys; sys.exit(os.environ['WHO'] + os.environ.get('HOME', ' alone'))"
        process = lab.start(0, [sys.executable, "-c", code], env={"WHO": "me"}, stderr=stream)
        assert process.wait(60) == 1
    assert written.read_text().strip() == "me alone"


def test_a_command_that_is_not_there_says_so(lab: Laboratory) -> None:
    process = lab.start(0, ["no-such-command"], stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.decode() == "no-such-command: No such file or directory\n"


# ------------------------------------------------------------------------------------------------------------- rates


def kernel_shaping(lab: Laboratory) -> list[Any]:
    """Return what ``tc`` reports of each host's own end and the bridge's."""
    tc = shutil.which("tc")
    if tc is None:
        pytest.skip("iproute2's tc, the second opinion on the kernel's settings, is not installed")
    ends = [(path, "eth0") for path in lab.namespaces]
    ends += [(lab._switch.path, f"port{host}") for host in range(len(ends))]
    found = []
    for path, device in ends:
        command = ["nsenter", f"--net={path}", tc, "-json", "qdisc", "show", "dev", device]
        found += json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def test_both_ends_of_every_link_are_shaped_in_place(lab: Laboratory) -> None:
    try:
        for link in (Link(40e6, 20_000), Link(80e6, 30_000)):
            lab.shape(link)
            assert lab.link == link
            shaping = kernel_shaping(lab)
            assert [rule["kind"] for rule in shaping] == ["tbf"] * 6
            for rule in shaping:
                assert rule["options"]["rate"] == link.rate_bps / 8
                assert rule["options"]["burst"] == pytest.approx(link.burst_bytes, abs=2)  # the kernel counts time
        lab.shape(None)
        lab.shape(None)  # once more, where there is nothing to remove
        assert [rule["kind"] for rule in kernel_shaping(lab)] == ["noqueue"] * 6
    finally:
        lab.shape(FAST)


@pytest.mark.slow
@pytest.mark.parametrize("rate_bps", [50e6, 100e6, 300e6])
def test_a_transfer_gets_the_payload_share_of_the_rate(lab: Laboratory, rate_bps: float) -> None:
    try:
        lab.shape(Link(rate_bps, burst_for(rate_bps)))
        best = [0.0, 0.0]
        for _ in range(3):  # a busy machine can only make it slower
            rates = lab.measure(1.0)
            best[0] = max(best[0], min(r.alone_bps for r in rates))
            best[1] = max(best[1], min(r.together_bps for r in rates))
        expected = rate_bps * payload_share()
        assert 0.98 * expected < best[0] < 1.01 * expected
        # What comes back to a host's predecessor, acknowledgements, takes from the same rate.
        assert 0.95 * expected < best[1] < 1.01 * expected
    finally:
        lab.shape(FAST)


# --------------------------------------------------------------------------------------------------------------- end


def test_closing_ends_what_runs_and_leaves_nothing() -> None:
    lab = Laboratory(2, FAST)
    watched = watch(lab)
    child = lab.start(1, ["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    grandchild = int(child.stdout.readline())
    child.stdout.close()
    lab.close()
    lab.close()
    assert child.returncode == -signal.SIGKILL
    assert not is_alive(grandchild)
    assert watched.all_end()


def test_an_exception_in_the_block_leaves_nothing() -> None:
    made: list[tuple[Watch, subprocess.Popen[bytes]]] = []

    def fail() -> None:
        with Laboratory(2, None) as lab:
            made.append((watch(lab), lab.start(0, SLEEP)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    watched, child = made[0]
    assert child.returncode == -signal.SIGKILL
    assert watched.all_end()


def test_a_failure_half_way_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Watch] = []

    def fail(lab: Laboratory, _: Link | None) -> None:
        made.append(watch(lab))
        raise OSError("no more")

    monkeypatch.setattr(Laboratory, "shape", fail)
    with pytest.raises(OSError, match="no more"):
        Laboratory(2, FAST)
    assert made[0].all_end()


OWNER = """
import json, os, subprocess, sys, time
from gradwire.analysis.laboratory import Laboratory
with Laboratory(2, None) as lab:
    child = lab.start(0, ["sleep", "1000"])
    parent = lab.start(1, ["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE)
    grandchild = int(parent.stdout.readline())
    print(json.dumps([[n.path for n in lab._all], [child.pid, parent.pid], grandchild]), flush=True)
    time.sleep(1000)
"""


def owner() -> tuple[subprocess.Popen[bytes], Watch, list[int], int]:
    """Start a process with a laboratory; return it, a watch of its namespaces, its children and a grandchild."""
    process = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    paths, children, grandchild = json.loads(process.stdout.readline())
    process.stdout.close()
    watched = Watch(paths)
    assert all(map(is_alive, [*children, grandchild]))
    return process, watched, children, grandchild


def test_an_interruption_leaves_nothing() -> None:
    process, watched, children, grandchild = owner()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert not any(map(is_alive, [*children, grandchild]))
    assert watched.all_end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_after_a_kill_the_kernel_ends_the_children_and_the_next_laboratory_theirs(number: signal.Signals) -> None:
    process, watched, children, grandchild = owner()
    process.send_signal(number)
    assert process.wait(60) == -number
    assert becomes(lambda: not any(map(is_alive, children)))
    with Laboratory(2, None):
        assert becomes(lambda: not is_alive(grandchild))
    assert watched.all_end()


def test_the_next_laboratory_spares_the_living_and_those_outside() -> None:
    with Laboratory(2, None) as first:
        living = first.start(0, SLEEP)
        dead = "-".join([*identity(os.getpid()).split("-")[:2], "1"])  # our number, of a process started long ago
        outside = subprocess.Popen(SLEEP, env={**os.environ, MARK: dead})
        elsewhere = first.start(1, ["env", f"{MARK}=1-2-3", *SLEEP])  # the mark of another PID namespace
        orphan = first.start(1, ["env", f"{MARK}={dead}", *SLEEP])
        assert becomes(lambda: b"sleep" in Path(f"/proc/{orphan.pid}/cmdline").read_bytes()[:5])
        try:
            with Laboratory(2, None):
                assert orphan.wait(60) == -signal.SIGKILL
                assert living.poll() is None
                assert elsewhere.poll() is None
                assert outside.poll() is None
        finally:
            outside.kill()
            outside.wait()


# ---------------------------------------------------------------------------------------------------------- mistakes


def test_what_the_kernel_lacks_is_what_it_refuses(lab: Laboratory) -> None:
    tc = shutil.which("tc")
    if tc is None:
        pytest.skip("iproute2's tc, the second opinion on what the kernel has, is not installed")
    lacking = []
    for kind, arguments in (("tbf", ["rate", "1mbit", "burst", "10kb", "limit", "10kb"]), ("netem", ["delay", "1ms"])):
        command = ["nsenter", f"--net={lab.namespaces[0]}", tc, "qdisc", "replace", "dev", "lo", "root", kind]
        if subprocess.run([*command, *arguments], capture_output=True, check=False).returncode:
            lacking.append(kind)
    assert missing_features() == tuple(lacking)


SMALL_BUCKET = (
    "burst_bytes = 9000: at 1e+08 bit/s the token bucket holds from 13042 bytes, a packet, to 12500000, a second of "
    "the rate; burst_for gives 26084"
)


@pytest.mark.parametrize(
    ("hosts", "link", "message"),
    [
        (1, None, "hosts = 1: a laboratory has from 2 to 250 hosts"),
        (251, None, "hosts = 251: a laboratory has from 2 to 250 hosts"),
        (2, Link(1e5, 10_000), "rate_bps = 100000.0: a link of the laboratory has from 1 Mbit/s to 32 Gbit/s"),
        (2, Link(float("nan"), 10_000), "rate_bps = nan: a link of the laboratory has from 1 Mbit/s to 32 Gbit/s"),
        (
            2,
            Link(1e8, 9_000),
            SMALL_BUCKET,
        ),
    ],
)
def test_what_cannot_be_built_is_said(hosts: int, link: Link | None, message: str) -> None:
    with pytest.raises(InputError) as error:
        Laboratory(hosts, link)
    assert str(error.value) == message


def test_missing_rights_are_said() -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("util-linux's setpriv, which drops rights, is not installed")
    code = "from gradwire.analysis.laboratory import check_lab; check_lab()"
    for right in ("sys_admin", "net_admin"):
        command = [setpriv, f"--bounding-set=-{right}", f"--inh-caps=-{right}", sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr.splitlines()[-1].startswith("gradwire.compressors.errors.InputError: the laboratory makes")
        assert f"needs root (CAP_{right.upper()}); run it as root" in done.stderr


def test_a_user_namespace_stands_in_for_root() -> None:
    unshare = [shutil.which("unshare") or "", "--user", "--map-root-user"]
    if not unshare[0] or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("util-linux's unshare is not installed, or this machine lets nobody make a user namespace")
    # Root of a namespace has all rights inside it and none outside; so has any user of the machine.
    code = (
        "from gradwire.analysis.laboratory import Laboratory, Link\n"
        "with Laboratory(2, Link(1e8, 30_000)) as lab: print(lab.start(1, ['true']).wait())"
    )
    done = subprocess.run([*unshare, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "0\n", done.stderr
