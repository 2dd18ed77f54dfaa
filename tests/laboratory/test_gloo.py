"""Gloo in the laboratory: processes in different hosts add up a tensor, and its bytes pass the shaped links."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from gradwire.analysis.laboratory import Laboratory, Link, burst_for, check_lab, payload_share
from gradwire.compressors.errors import InputError

try:
    check_lab()
    REASON = ""
except InputError as error:
    REASON = str(error)
TC = shutil.which("tc")
REASON = REASON or ("" if TC else "iproute2's tc, which counts the bytes of a link, is not installed")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]

HOSTS, VALUES = 3, 300_000
WORKER = f"""
import sys
import torch
import torch.distributed as dist

rank = int(sys.argv[2])
dist.init_process_group("gloo", init_method=sys.argv[1], rank=rank, world_size={HOSTS})
given = torch.arange({VALUES}) % 1000 + 1000 * rank
dist.all_reduce(given)
print(torch.equal(given, {HOSTS} * (torch.arange({VALUES}) % 1000) + 1000 * {sum(range(HOSTS))}))
"""


def sent_bytes(lab: Laboratory) -> list[int]:
    """Return what the token bucket of each host's own end has let pass."""
    found = []
    for path in lab.namespaces:
        command = ["nsenter", f"--net={path}", str(TC), "-json", "-s", "qdisc", "show", "dev", lab.interface]
        found.append(json.loads(subprocess.run(command, capture_output=True, check=True).stdout)[0]["bytes"])
    return found


def test_an_all_reduce_of_processes_in_different_hosts_passes_the_links() -> None:
    with Laboratory(HOSTS, Link(300e6, burst_for(300e6))) as lab:
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": lab.interface, "OMP_NUM_THREADS": "1"}
        where = f"tcp://{lab.addresses[0]}:29500"
        workers = [
            lab.start(host, [sys.executable, "-c", WORKER, where, str(host)], env=environment, stdout=subprocess.PIPE)
            for host in range(HOSTS)
        ]
        assert [worker.communicate(timeout=120)[0] for worker in workers] == [b"True\n"] * HOSTS
        payload = 2 * (HOSTS - 1) / HOSTS * VALUES * 8  # of int64, each worker in a ring
        for sent in sent_bytes(lab):
            assert payload / payload_share() <= sent < 1.1 * payload / payload_share()
