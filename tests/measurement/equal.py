"""One of several processes that take measured steps; it leaves the parameters and records for the tests to compare."""

import sys
from pathlib import Path

import torch

from gradwire.analysis.measurement.group import join
from gradwire.analysis.measurement.jobs import Plan, StepJob
from gradwire.analysis.measurement.steps import AfterStepper, DuringStepper, measure_steps

WORKERS = 3
STEPS = 6
SCHEMES = (
    "dense",
    "ef(topk(density=0.05))",
    "ef(powersgd(rank=2))",
    "qsgd(bits=4)",
    "ef(topk(density=0.1, coding=rice))",
)
JOBS = [
    StepJob(task="mnist", options={"hidden": "20,16"}, batch_size=8, scheme=scheme, repeats=3, warmup=3, **how)
    for scheme in SCHEMES
    for how in (
        {"agree": False, "bucket_bytes": 1000, "first_bucket_bytes": 500},
        {"overlap": True, "bucket_bytes": 1000, "first_bucket_bytes": 1000},
    )
]


def main(result: str) -> None:
    """Be one of the processes, under the environment that torchrun sets."""
    group = join(Plan(workers=WORKERS))
    found = []
    for job in JOBS:
        stepper = DuringStepper(job, group) if job.overlap else AfterStepper(job, group)
        taken = [stepper.step(step) for step in range(STEPS)]
        stepper.close()
        parameters = {name: p.detach().clone() for name, p in stepper.subject.trained.items()}
        found.append({"parameters": parameters, "steps": taken, "record": measure_steps(job, group)})
    if group.rank == 0:
        torch.save(found, result)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(sys.argv[1])
